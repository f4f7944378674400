"""The invariants of the design, as far as the sources show them: I1 to I5, I8.

Read by syntax trees, nothing is imported.  What shows at run time alone is in
tests/namespace/catalogue/test_invariants.py.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "rootlesspy"

# Rooms that handle trees which a container or an image controls.
ROOMS = (
    *("runtime/rootfs.py", "runtime/bundle_mounts.py", "runtime/user.py", "runtime/terminal.py"),
    *("runtime/init.py", "runtime/join.py", "runtime/bundle_init.py", "runtime/bundle_join.py"),
    "runtime/bundle_process.py",
    *("runtime/kernel_files.py", "runtime/sources.py"),
    *("runtime/payload.py", "runtime/landlock.py", "runtime/attributes.py"),
    *("engine/files/*.py", "engine/volume.py", "engine/copytree.py", "image/unpack.py"),
)
FILE_CALLS = {
    *("open", "mkdir", "makedirs", "chmod", "chown", "lchown", "symlink", "link", "rename"),
    *("replace", "unlink", "remove", "rmdir", "removedirs", "readlink", "stat", "lstat", "listdir"),
    *("scandir", "mknod", "mkfifo", "utime", "truncate", "walk", "setxattr", "getxattr", "access"),
    *("listxattr", "removexattr", "exists", "lexists", "isdir", "isfile", "islink"),
}
# Functions that name files by a whole path, and what these are.
BY_NAME = {
    "runtime/rootfs.py": {
        "open_root": "layers, or the directory of --rootfs itself",
        "mount_root": "the bundle's own empty directory",
        "own": "upper and work of the container's directory",
        "_remove_mark": "what the kernel's overlay made in work, which no container sees",
        "mount_one": "a source on the host, which the caller named",
        "open_source": "a source on the host, which the caller named",
        "open_sources": "sources on the host, which the caller named",
        "open_device": "/dev of the host; checked after opening",
    },
    "runtime/sources.py": {
        "open_all": "a source on the host, which the caller named",
        "_open_below": "the directory of rp's volumes",
    },
    "runtime/bundle_mounts.py": {
        "_bind": "a source on the host, which the caller named",
        "_map_ids": "/proc of the host",
        "_namespace_of": "/proc of the host",
        "_kernel_name": "/sys of the host",
        "_host_device": "/dev of the host; checked after opening",
    },
    "runtime/join.py": {"_enter": "the root of the container itself"},
    "runtime/bundle_join.py": {
        "_enter": "the root of the container itself",
        "_differing": "/proc of the host",
    },
    "runtime/bundle_init.py": {
        "_mount_root": "the root of the bundle itself",
        "find_executable": "inside, after the pivot, as the payload's user",
    },
    "runtime/bundle_process.py": {"id_map": "/proc of the host", "read": "/proc of the host"},
    "runtime/attributes.py": {"_write": "/proc of the host"},
    "engine/files/changes.py": {"open": "layers of the store, named by their digests"},
    "engine/files/container_root.py": {
        "_in_running": "/proc of the host",
        "_in_stopped": "the container's own empty directory",
        "_volumes": "whether a source on the host is there",
        "_serve_fuse": "the container's own empty directory",
        "_stop_fuse": "the container's own empty directory",
        "exists": "the container's own record",
    },
    "engine/files/copy_files.py": {"_run": "the host's root itself", "on_host": "the same"},
    "engine/files/export.py": {"export_to_file": "the caller's file on the host"},
    "engine/files/tree_archive.py": {"kept_xattrs": "by a descriptor in /proc/self/fd"},
    "engine/volume.py": {
        "_refuse_options": "/sys of the host",
        "_open": "a source on the host, which the caller named",
        "_open_root": "layers of the store, or the directory of --rootfs itself",
        "_is_empty": "the volume's own directory",
    },
    "engine/copytree.py": {"copy_layers": "layers of the store and the container's directory"},
}
# mount(2) by path, but for the propagation of all mounts: nothing of a container is on it.
MOUNT_BY_PATH = {
    "runtime/rootfs.py": {"mount_root"},
    "runtime/bundle_init.py": {"_change_root"},
    "runtime/fuse.py": {"_reachable"},
    "engine/volume.py": {"_open_root"},
}


def sources(*patterns: str) -> list[tuple[str, ast.Module]]:
    paths = [path for pattern in patterns for path in sorted(PACKAGE.glob(pattern))]
    assert paths
    return [(p.relative_to(PACKAGE).as_posix(), ast.parse(p.read_text("utf-8"))) for p in paths]


def functions(tree: ast.Module) -> list[tuple[str, ast.FunctionDef]]:
    return [(node.name, node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def function(module: str, name: str) -> ast.FunctionDef:
    ((_, tree),) = sources(module)
    return next(node for found, node in functions(tree) if found == name)


def calls(node: ast.AST) -> list[ast.Call]:
    """Return the calls in a node in the order of their lines."""
    found = [each for each in ast.walk(node) if isinstance(each, ast.Call)]
    return sorted(found, key=lambda each: (each.lineno, each.col_offset))


def names_a_file(call: ast.Call) -> bool:
    """Say whether a call looks a whole path up: no descriptor is its start or its subject."""
    called = ast.unparse(call.func)
    module, _, last = called.rpartition(".")
    if called != "open" and not (module in ("os", "os.path") and last in FILE_CALLS):
        return module == "shutil"
    if {keyword.arg for keyword in call.keywords} & {"dir_fd", "src_dir_fd", "dst_dir_fd"}:
        return False
    first = ast.unparse(call.args[0]) if call.args else ""
    by_descriptor = first.endswith(("fd", ".fd", "handle")) or "/proc/self/fd/" in first
    return not by_descriptor


@pytest.mark.row(
    "I1", "a call that names a whole path fails the test, unless it is on a short list"
)
def test_i1_trees_of_containers_are_handled_by_descriptors() -> None:
    strange = [
        f"{module}:{call.lineno} {name}: {ast.unparse(call)}"
        for module, tree in sources(*ROOMS)
        for name, node in functions(tree)
        for call in calls(node)
        if names_a_file(call) and name not in BY_NAME.get(module, {})
    ]
    assert not strange, "give it a dir_fd, or say in BY_NAME what it names:\n" + "\n".join(strange)


def test_i1_would_be_noticed() -> None:
    def noticed(source: str) -> bool:
        return names_a_file(calls(ast.parse(source))[0])

    for bad in ("open(path)", "os.mkdir(root + name)", "shutil.rmtree(x)", "os.path.exists(p)"):
        assert noticed(bad), bad
    for good in ("os.mkdir(name, dir_fd=fd)", "os.listdir(root_fd)", "os.fstat(x)", "os.close(x)"):
        assert not noticed(good), good


@pytest.mark.row("I2", "mount(2) by path: for the root itself and propagation only")
def test_i2_mounts_are_made_on_descriptors() -> None:
    strange = [
        f"{module}:{call.lineno} {name}"
        for module, tree in sources("runtime/*.py", "engine/*.py", "engine/files/*.py")
        for name, node in functions(tree)
        for call in calls(node)
        if ast.unparse(call.func) == "mount.mount"
        and not ast.unparse(call).startswith("mount.mount(None, b'/', None, mount.MS_REC | ")
        and name not in MOUNT_BY_PATH.get(module, set())
    ]
    assert not strange


@pytest.mark.row("I3", "sysctls are written through a descriptor of the procfs that rp mounted")
def test_i3_sysctls_are_written_below_a_descriptor() -> None:
    module = "runtime/kernel_files.py"
    used = [ast.unparse(call.func) for call in calls(function(module, "write_sysctls"))]
    assert "_open" in used
    used += [ast.unparse(call.func) for call in calls(function(module, "_open"))]
    assert "pathrs.open_in_root" in used
    assert not {"os.open", "open"} & set(used)


# What runs between the pivot, or the joiner's setns, and the payload.
AFTERWARDS = (
    *(("runtime/init.py", "_become_payload"), ("runtime/payload.py", "become")),
    *(("runtime/payload.py", name) for name in ("_confine", "_install_filter", "_execute")),
    *(("runtime/payload.py", name) for name in ("set_ids", "_change_directory", "_reset_signals")),
    *(("runtime/payload.py", "close_imports"), ("runtime/caps.py", "apply")),
    *(("runtime/seccomp.py", "install"), ("linux/landlock.py", "restrict_self")),
    *(("linux/libc.py", "syscall"), ("linux/libc.py", "check")),
    ("runtime/terminal.py", "become_controlling"),
)


@pytest.mark.row("I4", "the functions that run then import nothing and open nothing")
@pytest.mark.parametrize(("module", "name"), AFTERWARDS)
def test_i4_nothing_is_imported_after_the_pivot(module: str, name: str) -> None:
    node = function(module, name)
    for each in ast.walk(node):
        assert not isinstance(each, (ast.Import, ast.ImportFrom)), each.lineno
    called = {ast.unparse(call.func) for call in calls(node)}
    assert not called & {"open", "os.open", "os.stat", "os.listdir", "str.encode"}
    # Codecs are modules: text is encoded before.
    assert not [each for each in called if each.endswith((".encode", ".decode", "fsencode"))]


@pytest.mark.row("I4", "imports are closed before the payload's user and files count")
def test_i4_imports_are_closed_first() -> None:
    first = calls(function("runtime/init.py", "_become_payload"))[0]
    assert ast.unparse(first) == "payload.close_imports()"
    order = [ast.unparse(call.func) for call in calls(function("runtime/join.py", "_enter"))]
    assert order.index("payload.close_imports") < order.index("process.clone3")


@pytest.mark.row("I5", "init and joiner are not dumpable before they are in the container")
@pytest.mark.parametrize(
    ("module", "name", "before"),
    [
        ("runtime/init.py", "_run", "process.unshare"),
        ("runtime/init.py", "_run", "mount.pivot_root"),
        ("runtime/join.py", "_enter", "process.setns"),
    ],
)
def test_i5_nobody_looks_into_who_enters(module: str, name: str, before: str) -> None:
    order = [ast.unparse(call) for call in calls(function(module, name))]
    hidden = order.index("process.set_dumpable(False)")
    entered = next(index for index, call in enumerate(order) if call.startswith(before))
    assert hidden < entered
    assert "process.set_dumpable(True)" not in order


# 0 to 2 where the caller has none, and what systemd hands over for the payload.
PASSED_ON = ("__main__.py", "runtime/payload.py")


@pytest.mark.row("I8", "descriptors that the kernel makes outside Python are close-on-exec")
def test_i8_descriptors_are_close_on_exec() -> None:
    """os.open() and its like see to it; system calls that rp makes itself have a flag for it."""
    ((_, tree),) = sources("linux/mount.py")
    text = ast.unparse(tree)
    for flag in ("OPEN_TREE_CLOEXEC", "FSOPEN_CLOEXEC", "FSMOUNT_CLOEXEC"):
        assert text.count(flag) >= 2, f"{flag} is defined and used"
    for module, tree in sources("**/*.py"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node).endswith(", True)"):
                passed_on = ast.unparse(node.func).endswith("set_inheritable")
                assert not passed_on or module in PASSED_ON, f"{module}:{node.lineno}"
