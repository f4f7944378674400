"""rp's own modules are looked up where they are, and their byte code is read without ceremony.

Python's finder lists directories, tries ten names for each module and reads through two layers of
files: 4 ms of the hundred modules of a start.  The rules are its own: byte code counts while it
carries the time and size of its source.  What is unusual in any way is left to Python's finder.
"""

from __future__ import annotations

import marshal
import os
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader

from rootlesspy.light_typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

_PACKAGE = __package__ + "."
_HEADER_BYTES = 16
# PEP 552: not by hash.
_BY_TIME = MAGIC_NUMBER + b"\0\0\0\0"
_BYTE_CODE = f".{sys.implementation.cache_tag}.pyc"


def install() -> None:
    """Look up our modules this way from now on, and run site once it is missed."""
    ordinary = sys.flags.optimize == 0 and sys.pycache_prefix is None
    if ordinary and type(__spec__.loader) is SourceFileLoader:
        sys.meta_path.insert(0, _OwnModules)
    if sys.flags.no_site:
        sys.meta_path.append(_SitePackages)


class _OwnModules:
    """Finds the modules of this package."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how a module of ours is loaded."""
        if path is None or len(path) != 1 or not name.startswith(_PACKAGE):
            return None
        directory, stem = path[0], name.rpartition(".")[2]
        origin = f"{directory}/{stem}.py"
        try:
            status, locations = os.stat(origin), None
        except OSError:
            directory, stem = f"{directory}/{stem}", "__init__"
            origin = f"{directory}/{stem}.py"
            try:
                status, locations = os.stat(origin), [directory]
            except OSError:
                return None
        loader = _Loader(name, origin)
        loader.found = status
        spec = ModuleSpec(name, loader, origin=origin, is_package=locations is not None)
        spec.submodule_search_locations = locations
        spec.has_location = True
        spec.cached = f"{directory}/__pycache__/{stem}{_BYTE_CODE}"
        return spec


class _Loader(SourceFileLoader):
    found: os.stat_result

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the byte code of a module, compiled where there is none for its source."""
        return _byte_code(self.path, self.found) or super().get_code(fullname)


def _byte_code(source: str, status: os.stat_result) -> CodeType | None:
    directory, _, name = source.rpartition("/")
    try:
        fd = os.open(f"{directory}/__pycache__/{name[:-3]}{_BYTE_CODE}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)
    except OSError:
        return None
    time, size = int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF
    if data[:_HEADER_BYTES] != _BY_TIME + time.to_bytes(4, "little") + size.to_bytes(4, "little"):
        return None
    try:
        # As trustworthy as the source beside it, which Python's own loader would run.
        code: CodeType = marshal.loads(memoryview(data)[_HEADER_BYTES:])  # noqa: S302
    except (EOFError, ValueError, TypeError):
        return None
    # Where it has been moved Python's loader puts the new path in.
    return code if code.co_filename == source else None


class _SitePackages:
    """Has site look for packages, which takes 4 ms, once one is in no directory known so far."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how a module outside those directories is loaded."""
        if path is not None or _SitePackages not in sys.meta_path:
            return None
        sys.meta_path.remove(_SitePackages)
        import site
        from _frozen_importlib_external import PathFinder

        site.main()
        return PathFinder.find_spec(name, path, target)
