/*
 * What a process sees of its confinement, as JSON on stdout: the payload of the isolation tests.
 *
 *   probe                     capabilities, ids, descriptors, namespaces, mounts, keyrings, ...
 *   probe report FILE         the same into a file, for when stdout is not to be had
 *   probe syscall NR [A...]   one system call with up to six numbers; its errno, 0 for success
 *   probe calls CALL...       errno of each NR,A,B...; i386:NR,... by int 0x80 with i386 numbers;
 *                             socketcall:FAMILY,TYPE,PROTOCOL by i386's socketcall(SYS_SOCKET)
 *   probe sweep FIRST LAST    errno of each call number of the range, each with arguments of -1
 *   probe open-write PATH...  errno of opening each path for writing
 *   probe writable DIR        every file of a tree that opens for writing
 *   probe look PATH...        type, device numbers, entries, whether it opens
 *   probe make-node PATH MODE MAJOR MINOR
 *   probe with-key NAME ARG.. run a command with a key NAME in the session and the user keyring
 *   probe find-key NAME       errno of looking that key up
 *   probe environ             the environment of every process that can be seen
 *   probe values DIR          what each file of a tree says, the first 512 bytes
 *   probe mount SOURCE TARGET TYPE   mount(2): its errno
 *   probe deep-mount COUNT    a tmpfs below that many directories: its errno
 *   probe unmount PATH...     umount2(2) of each: its errno
 *   probe namespaces-of WORD  unshare these (user, net, mnt, ...) and then run the rest: NAMES -- ..
 *   probe type CHARACTER      puts it into the input of every terminal in reach, in every way:
 *                             what worked, and how often it was tried
 *   probe several WORDS , WORDS ..   each of them in a child, a line of JSON for each
 *   probe pause               say "ready" and wait for SIGTERM
 *
 * gcc -static -O2 -Wall -Wextra -Werror -o probe probe.c
 *
 * It uses no library beyond libc, no stdio buffering after a fork, and no thread: it has to run in
 * an image that holds nothing else.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* JSON */

static const char *separator = "";

static void string(const char *text)
{
    putchar('"');
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c == '"' || *c == '\\')
            printf("\\%c", *c);
        else if (*c < 0x20 || *c >= 0x7f)
            printf("\\u%04x", *c); /* bytes as Latin-1: lossless, whatever the encoding */
        else
            putchar(*c);
    }
    putchar('"');
}

static void key(const char *name)
{
    fputs(separator, stdout);
    string(name);
    putchar(':');
    separator = ",";
}

static void begin(const char *name, char bracket)
{
    key(name);
    putchar(bracket);
    separator = "";
}

static void end(char bracket)
{
    putchar(bracket);
    separator = ",";
}

static void number(const char *name, long long value)
{
    key(name);
    printf("%lld", value);
}

static void text(const char *name, const char *value)
{
    key(name);
    string(value);
}

static void item(const char *value)
{
    fputs(separator, stdout);
    string(value);
    separator = ",";
}

/* The lines of a file, each as a string; null when it does not open. */
static void lines(const char *name, const char *path)
{
    FILE *stream = fopen(path, "re");
    char *line = NULL;
    size_t size = 0;
    ssize_t length;

    if (!stream) {
        key(name);
        fputs("null", stdout);
        return;
    }
    begin(name, '[');
    while ((length = getline(&line, &size, stream)) >= 0) {
        if (length > 0 && line[length - 1] == '\n')
            line[length - 1] = 0;
        item(line);
    }
    end(']');
    free(line);
    fclose(stream);
}

static void link_target(const char *name, const char *path)
{
    char target[4096];
    ssize_t length = readlink(path, target, sizeof target - 1);

    if (length < 0)
        snprintf(target, sizeof target, "errno %d", errno);
    else
        target[length] = 0;
    text(name, target);
}

/* What is reported */

static void status_fields(void)
{
    FILE *stream = fopen("/proc/self/status", "re");
    char line[4096];

    begin("status", '{');
    while (stream && fgets(line, sizeof line, stream)) {
        char *value = strchr(line, ':');
        if (!value)
            continue;
        *value++ = 0;
        value[strcspn(value, "\n")] = 0;
        text(line, value + strspn(value, "\t "));
    }
    end('}');
    if (stream)
        fclose(stream);
}

static void descriptors(void)
{
    begin("fds", '{');
    for (int fd = 0; fd < 4096; fd++) {
        char name[16], path[64];
        if (fcntl(fd, F_GETFD) < 0)
            continue;
        snprintf(name, sizeof name, "%d", fd);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        link_target(name, path);
    }
    end('}');
}

static void namespaces(void)
{
    static const char *kinds[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};

    begin("namespaces", '{');
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", kinds[i]);
        link_target(kinds[i], path);
    }
    end('}');
}

static void ids(void)
{
    uid_t ruid, euid, suid;
    gid_t rgid, egid, sgid, groups[1024];
    int count = getgroups(1024, groups);

    getresuid(&ruid, &euid, &suid);
    getresgid(&rgid, &egid, &sgid);
    key("uids");
    printf("[%u,%u,%u]", ruid, euid, suid);
    key("gids");
    printf("[%u,%u,%u]", rgid, egid, sgid);
    begin("groups", '[');
    for (int i = 0; i < count; i++)
        printf("%s%u", i ? "," : "", groups[i]);
    end(']');
}

static void keyrings(void)
{
    /* KEYCTL_GET_KEYRING_ID of @s, @us and @u, without creating one */
    static const struct { const char *name; int id; } rings[] = {
        {"session", -3}, {"user", -4}, {"user_session", -5}};

    begin("keyrings", '{');
    for (size_t i = 0; i < sizeof rings / sizeof *rings; i++) {
        long serial = syscall(SYS_keyctl, 0, rings[i].id, 0, 0, 0);
        number(rings[i].name, serial < 0 ? -errno : serial);
    }
    end('}');
}

static void limits(void)
{
    static const char *names[] = {
        "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS",
        "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};

    begin("rlimits", '{');
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++) {
        struct rlimit limit;
        if (getrlimit(i, &limit) < 0)
            continue;
        key(names[i]);
        printf("[%lld,%lld]", (long long)limit.rlim_cur, (long long)limit.rlim_max);
    }
    end('}');
}

static void terminal(void)
{
    struct winsize size = {0};
    struct stat console;

    begin("tty", '{');
    for (int fd = 0; fd < 3; fd++) {
        char name[16];
        snprintf(name, sizeof name, "%d", fd);
        number(name, isatty(fd));
    }
    ioctl(0, TIOCGWINSZ, &size);
    number("rows", size.ws_row);
    number("columns", size.ws_col);
    number("controlling", open("/dev/tty", O_RDWR | O_CLOEXEC) >= 0);
    number("console", stat("/dev/console", &console) == 0 && S_ISCHR(console.st_mode));
    number("session_leader", getsid(0) == getpid());
    end('}');
}

static void report(const char *file)
{
    static char buffer[1 << 20]; /* nothing is written before the descriptors are counted */
    char cwd[4096], host[256];
    mode_t mask = umask(0);

    umask(mask);
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    putchar('{');
    /* Before anything opens a descriptor of its own. */
    descriptors();
    status_fields();
    ids();
    namespaces();
    keyrings();
    limits();
    terminal();
    number("pid", getpid());
    number("ppid", getppid());
    number("umask", mask);
    number("dumpable", prctl(PR_GET_DUMPABLE));
    number("keep_capabilities", prctl(PR_GET_KEEPCAPS));
    number("securebits", prctl(PR_GET_SECUREBITS));
    number("nice", getpriority(PRIO_PROCESS, 0));
    number("scheduler", sched_getscheduler(0));
    /* The system call, as getcwd(3) hides "(unreachable)". */
    text("cwd", syscall(SYS_getcwd, cwd, sizeof cwd) < 0 ? strerror(errno) : cwd);
    text("hostname", gethostname(host, sizeof host) < 0 ? "" : host);
    link_target("exe", "/proc/self/exe");
    link_target("root", "/proc/self/root");
    lines("oom_score_adj", "/proc/self/oom_score_adj");
    lines("cgroup", "/proc/self/cgroup");
    lines("uid_map", "/proc/self/uid_map");
    lines("gid_map", "/proc/self/gid_map");
    lines("setgroups", "/proc/self/setgroups");
    lines("mountinfo", "/proc/self/mountinfo");
    lines("net_dev", "/proc/net/dev");
    lines("net_unix", "/proc/net/unix");
    begin("env", '[');
    for (char **entry = environ; *entry; entry++)
        item(*entry);
    end(']');
    puts("}");
    if (file) {
        /* Under its name it is whole: somebody waits for it. */
        char draft[4096];
        snprintf(draft, sizeof draft, "%s.draft", file);
        int fd = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0 || dup2(fd, 1) < 0 || fflush(stdout) || rename(draft, file) < 0)
            _exit(3);
    }
}

/* System calls */

static long number_of(const char *word)
{
    char *stop;
    errno = 0;
    long value = (long)strtoull(word, &stop, 0);
    if (errno || *stop || !*word) {
        fprintf(stderr, "probe: not a number: %s\n", word);
        exit(2);
    }
    return value;
}

static int call64(const long *a)
{
    return syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]) == -1 ? errno : 0;
}

#ifdef __x86_64__
/* The kernel takes i386 numbers and 32-bit registers here; rbp, the sixth, stays as it is. */
static int call32(const long *a)
{
    long result;
    __asm__ volatile("int $0x80"
                     : "=a"(result)
                     : "a"(a[0]), "b"(a[1]), "c"(a[2]), "d"(a[3]), "S"(a[4]), "D"(a[5])
                     : "memory", "r8", "r9", "r10", "r11", "cc");
    int value = (int)result;
    return value < 0 && value > -4096 ? -value : 0;
}

/* socketcall takes its arguments from memory below 4 GiB: what no filter can look into. */
static int socketcall32(const long *a)
{
    uint32_t *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED)
        return errno;
    for (int i = 0; i < 3; i++)
        low[i] = a[i];
    long call[] = {102, 1, (long)low, 0, 0, 0, 0};
    return call32(call);
}
#else
static int call32(const long *a) { (void)a; return ENOSYS; }
static int socketcall32(const long *a) { (void)a; return ENOSYS; }
#endif

enum { PATIENCE_S = 100, LAST_KNOWN = 480 };

/* In a child, so that a call that kills, hangs or forks spoils nothing; -signal when it died. */
static int in_child(int (*make)(const long *), const long *arguments, unsigned limit_s)
{
    int fds[2], status = 0, answer = 0;
    pid_t child;

    if (pipe2(fds, O_CLOEXEC) < 0 || (child = fork()) < 0)
        return errno;
    if (child == 0) {
        alarm(limit_s);
        answer = make(arguments);
        _exit(write(fds[1], &answer, sizeof answer) != sizeof answer);
    }
    close(fds[1]);
    if (read(fds[0], &answer, sizeof answer) != sizeof answer)
        answer = 0;
    close(fds[0]);
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : answer;
}

static void calls(char **specifications)
{
    putchar('{');
    for (; *specifications; specifications++) {
        int (*make)(const long *) = call64;
        long arguments[7] = {0};
        char words[256], *word = words;
        size_t count = 0;

        snprintf(words, sizeof words, "%s", *specifications);
        if (!strncmp(words, "i386:", 5)) {
            make = call32;
            word += 5;
        } else if (!strncmp(words, "socketcall:", 11)) {
            make = socketcall32;
            word += 11;
        }
        for (word = strtok(word, ","); word && count < 7; word = strtok(NULL, ","))
            arguments[count++] = number_of(word);
        fflush(stdout);
        number(*specifications, in_child(make, arguments, PATIENCE_S));
    }
    puts("}");
}

static void sweep(long first, long last)
{
    /* Would end, stop or multiply the prober, or wait for ever, whatever the filter. */
    static const long unsafe[] = {
        SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_pause, SYS_rt_sigsuspend, SYS_kill,
#ifdef SYS_fork
        SYS_fork, SYS_vfork,
#endif
        SYS_reboot, SYS_close, SYS_close_range, SYS_munmap};
    long call[7] = {0, -1, -1, -1, -1, -1, -1};

    putchar('{');
    for (long nr = first; nr <= last; nr++) {
        int skip = 0;
        char name[24];
        for (size_t i = 0; i < sizeof unsafe / sizeof *unsafe; i++)
            skip |= nr == unsafe[i];
        if (skip)
            continue;
        call[0] = nr;
        snprintf(name, sizeof name, "%ld", nr);
        fflush(stdout);
        /* select, poll and their like may wait for ever with such arguments; sync for the disk. */
        number(name, in_child(call64, call, nr > LAST_KNOWN || nr == SYS_sync ? PATIENCE_S : 10));
    }
    puts("}");
}

/* Files */

static void open_write(char **paths)
{
    putchar('{');
    for (; *paths; paths++) {
        int fd = open(*paths, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        number(*paths, fd < 0 ? errno : 0);
        if (fd >= 0)
            close(fd);
    }
    puts("}");
}

static int note_writable(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)place;
    if (type == FTW_F && S_ISREG(status->st_mode)) {
        int fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
        if (fd >= 0) {
            item(path);
            close(fd);
        }
    }
    return 0;
}

static void writable(const char *directory)
{
    putchar('[');
    nftw(directory, note_writable, 64, FTW_PHYS);
    puts("]");
}

static int note_value(const char *path, const struct stat *status, int type, struct FTW *place)
{
    char value[513];
    ssize_t length;
    int fd;

    (void)place;
    if (type != FTW_F || !S_ISREG(status->st_mode))
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    length = fd < 0 ? -1 : read(fd, value, sizeof value - 1);
    if (length < 0)
        snprintf(value, sizeof value, "errno %d", errno);
    else
        value[length] = 0;
    text(path, value);
    if (fd >= 0)
        close(fd);
    return 0;
}

static void values(const char *directory)
{
    putchar('{');
    nftw(directory, note_value, 64, FTW_PHYS);
    puts("}");
}

static void look(const char *path)
{
    struct stat status = {0};
    char byte;
    DIR *directory;

    begin(path, '{');
    number("errno", lstat(path, &status) < 0 ? errno : 0);
    if (status.st_mode && (directory = opendir(path))) {
        struct dirent *entry;
        begin("entries", '[');
        while ((entry = readdir(directory)))
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
                item(entry->d_name);
        end(']');
        number("mkdirat_errno", mkdirat(dirfd(directory), "probe", 0700) < 0 ? errno : 0);
        closedir(directory);
    } else {
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
        number("open_errno", fd < 0 ? errno : 0);
        if (fd >= 0) {
            number("bytes", read(fd, &byte, 1));
            close(fd);
        }
    }
    number("major", major(status.st_rdev));
    number("minor", minor(status.st_rdev));
    text("type", S_ISCHR(status.st_mode) ? "character" : S_ISDIR(status.st_mode) ? "directory"
                 : S_ISREG(status.st_mode) ? "file" : S_ISLNK(status.st_mode) ? "link" : "other");
    end('}');
}

static void environments(void)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;

    putchar('{');
    while (processes && (entry = readdir(processes))) {
        char path[300], words[65536];
        ssize_t length;
        int fd;
        if (!atoi(entry->d_name))
            continue;
        snprintf(path, sizeof path, "/proc/%s/environ", entry->d_name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        length = fd < 0 ? -1 : read(fd, words, sizeof words - 1);
        begin(entry->d_name, '[');
        for (char *word = words; length > 0 && word < words + length; word += strlen(word) + 1)
            item(word);
        end(']');
    }
    puts("}");
}

/* Keys */

static int with_key(const char *name, char **command)
{
    syscall(SYS_keyctl, 1, NULL); /* KEYCTL_JOIN_SESSION_KEYRING: not the caller's own */
    for (int ring = -3; ring >= -4; ring--)
        if (syscall(SYS_add_key, "user", name, "secret", 6, ring) < 0)
            perror("probe: add_key");
    execvp(*command, command);
    perror("probe: exec");
    return 127;
}

/* By names that are relative: the whole path is longer than any one call takes. */
static void deep_mount(long count)
{
    static char name[201];
    int error = chdir("/tmp") < 0 ? errno : 0;

    memset(name, 'd', sizeof name - 1);
    for (long i = 0; i < count && !error; i++)
        if ((mkdir(name, 0755) < 0 && errno != EEXIST) || chdir(name) < 0)
            error = errno;
    if (!error && mount("tmpfs", ".", "tmpfs", 0, NULL) < 0)
        error = errno;
    printf("{\"errno\":%d}\n", error);
}

/* Terminals */

static int tries;

static void insert_into(const char *place, int fd, const char *character)
{
    char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    struct { char subcode, character; } line = {2, *character};
    const long address = (long)low;
    const struct { const char *name; int (*make)(const long *); long call[7]; } ways[] = {
        {"plain", call64, {SYS_ioctl, fd, TIOCSTI, address}},
        {"high bits", call64, {SYS_ioctl, fd, TIOCSTI | 1L << 32, address}},
        {"i386", call32, {54, fd, TIOCSTI, address}},
        {"console", call64, {SYS_ioctl, fd, TIOCLINUX, (long)&line}},
    };

    if (low == MAP_FAILED)
        return;
    *low = *character;
    /* Only one's own terminal can be typed into: is it to be had? */
    ioctl(fd, TIOCSCTTY, 0);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++, tries++) {
        char name[64];
        if (ways[i].make(ways[i].call))
            continue;
        snprintf(name, sizeof name, "%s %s", place, ways[i].name);
        item(name);
    }
    munmap(low, 4096);
}

static void insert_everywhere(const char *character)
{
    static const char *devices[] = {
        "/dev/tty", "/dev/console", "/dev/tty0", "/dev/tty1", "/dev/pts/0", "/dev/pts/1"};

    for (int fd = 0; fd < 3; fd++)
        insert_into(fd == 0 ? "stdin" : fd == 1 ? "stdout" : "stderr", fd, character);
    for (size_t i = 0; i < sizeof devices / sizeof *devices; i++) {
        int fd = open(devices[i], O_RDWR | O_CLOEXEC | O_NONBLOCK);
        if (fd >= 0) {
            insert_into(devices[i], fd, character);
            close(fd);
        }
    }
}

/* As it is, and as the leader of a new session, which may have a terminal given to it. */
static void type_in(const char *character)
{
    pid_t child;

    putchar('{');
    begin("worked", '[');
    insert_everywhere(character);
    fflush(stdout);
    if ((child = fork()) == 0) {
        setsid();
        insert_everywhere(character);
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    end(']');
    number("tries", tries);
    puts("}");
}

static int flags_of(const char *names)
{
    static const struct { const char *name; int flag; } kinds[] = {
        {"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS}, {"net", CLONE_NEWNET},
        {"pid", CLONE_NEWPID}, {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS},
        {"cgroup", CLONE_NEWCGROUP}};
    int flags = 0;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strstr(names, kinds[i].name))
            flags |= kinds[i].flag;
    return flags;
}

static int run(int argc, char **argv);

/* The rest as the first process of new namespaces, or the errno of making them. */
static int unshared(char **argv, int argc)
{
    int status = 0;
    pid_t child;

    if (unshare(flags_of(argv[0])) < 0) {
        printf("{\"unshare\":%d}\n", errno);
        return 0;
    }
    fflush(stdout);
    if ((child = fork()) == 0) {
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
        _exit(run(argc, argv) | (fflush(stdout) != 0));
    }
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}

static int several(int argc, char **argv)
{
    int failed = 0;

    for (int start = 2; start < argc;) {
        int stop = start, status = 0;
        pid_t child;
        while (stop < argc && strcmp(argv[stop], ","))
            stop++;
        argv[start - 1] = argv[0];
        argv[stop] = NULL;
        if ((child = fork()) == 0)
            _exit(run(stop - start + 1, argv + start - 1) | (fflush(stdout) != 0));
        waitpid(child, &status, 0);
        failed |= status != 0;
        start = stop + 1;
    }
    return failed;
}

int main(int argc, char **argv)
{
    if (argc > 2 && !strcmp(argv[1], "several"))
        return several(argc, argv);
    return run(argc, argv) | (fflush(stdout) == 0 ? 0 : 3);
}

static int run(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "report";
    long call[7] = {0};

    if (!strcmp(word, "report")) {
        report(argc > 2 ? argv[2] : NULL);
    } else if (!strcmp(word, "syscall") && argc > 2 && argc < 10) {
        for (int i = 2; i < argc; i++)
            call[i - 2] = number_of(argv[i]);
        printf("%d\n", in_child(call64, call, PATIENCE_S));
    } else if (!strcmp(word, "calls")) {
        calls(argv + 2);
    } else if (!strcmp(word, "sweep") && argc == 4) {
        sweep(number_of(argv[2]), number_of(argv[3]));
    } else if (!strcmp(word, "open-write")) {
        open_write(argv + 2);
    } else if (!strcmp(word, "writable") && argc == 3) {
        writable(argv[2]);
    } else if (!strcmp(word, "values") && argc == 3) {
        values(argv[2]);
    } else if (!strcmp(word, "mount") && argc == 5) {
        putchar('{');
        number(argv[3], mount(argv[2], argv[3], argv[4], 0, NULL) < 0 ? errno : 0);
        puts("}");
    } else if (!strcmp(word, "deep-mount") && argc == 3) {
        deep_mount(number_of(argv[2]));
    } else if (!strcmp(word, "unmount")) {
        putchar('{');
        for (char **path = argv + 2; *path; path++)
            number(*path, umount2(*path, MNT_DETACH) < 0 ? errno : 0);
        puts("}");
    } else if (!strcmp(word, "namespaces-of") && argc > 3) {
        return unshared(argv + 2, argc - 2);
    } else if (!strcmp(word, "look")) {
        putchar('{');
        for (char **path = argv + 2; *path; path++)
            look(*path);
        puts("}");
    } else if (!strcmp(word, "make-node") && argc == 6) {
        dev_t device = makedev(number_of(argv[4]), number_of(argv[5]));
        putchar('{');
        number(argv[2], mknod(argv[2], number_of(argv[3]), device) < 0 ? errno : 0);
        puts("}");
    } else if (!strcmp(word, "with-key") && argc > 3) {
        return with_key(argv[2], argv + 3);
    } else if (!strcmp(word, "find-key") && argc == 3) {
        printf("%d\n", syscall(SYS_request_key, "user", argv[2], NULL, 0) < 0 ? errno : 0);
    } else if (!strcmp(word, "type") && argc == 3) {
        type_in(argv[2]);
    } else if (!strcmp(word, "environ")) {
        environments();
    } else if (!strcmp(word, "pause")) {
        sigset_t terminate;
        int received;
        sigemptyset(&terminate);
        sigaddset(&terminate, SIGTERM);
        sigprocmask(SIG_BLOCK, &terminate, NULL);
        puts("ready");
        fflush(stdout);
        sigwait(&terminate, &received);
    } else {
        return 2;
    }
    return 0;
}
