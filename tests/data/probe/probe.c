/*
 * What a process sees of its confinement, as JSON on stdout: the payload of the isolation tests.
 *
 *   probe                     capabilities, ids, descriptors, namespaces, mounts, keyrings, ...
 *   probe syscall NR [A...]   one system call with up to six numbers; its errno, 0 for success
 *   probe syscall32 NR [A...] the same by int 0x80, that is with the numbers of i386
 *   probe sweep FIRST LAST    errno of each call number of the range, each with arguments of -1
 *   probe open-write PATH...  errno of opening each path for writing
 *   probe readable DIR        what a directory holds, and whether a file opens
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
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
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

static void report(void)
{
    char cwd[4096], host[256];
    mode_t mask = umask(0);

    umask(mask);
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
static int socketcall32(int family, int type, int protocol)
{
    uint32_t *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED)
        return errno;
    low[0] = family;
    low[1] = type;
    low[2] = protocol;
    long call[] = {102, 1, (long)low, 0, 0, 0, 0};
    return call32(call);
}
#else
static int call32(const long *a) { (void)a; return ENOSYS; }
static int socketcall32(int f, int t, int p) { (void)f, (void)t, (void)p; return ENOSYS; }
#endif

/* In a child, so that a call that kills, hangs or forks spoils nothing; -signal when it died. */
static int in_child(int (*make)(const long *), const long *arguments)
{
    int fds[2], status = 0, answer = 0;
    pid_t child;

    if (pipe2(fds, O_CLOEXEC) < 0 || (child = fork()) < 0)
        return errno;
    if (child == 0) {
        alarm(2);
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
        number(name, in_child(call64, call));
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

static void readable(const char *path)
{
    struct stat status;
    char byte;
    DIR *directory = opendir(path);
    int fd;

    putchar('{');
    if (lstat(path, &status) < 0) {
        number("errno", errno);
        puts("}");
        return;
    }
    number("mode", status.st_mode);
    number("major", major(status.st_rdev));
    number("minor", minor(status.st_rdev));
    if (directory) {
        struct dirent *entry;
        begin("entries", '[');
        while ((entry = readdir(directory)))
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
                item(entry->d_name);
        end(']');
        number("mkdirat_errno", mkdirat(dirfd(directory), "probe", 0700) < 0 ? errno : 0);
        closedir(directory);
    } else {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        number("open_errno", fd < 0 ? errno : 0);
        if (fd >= 0)
            number("bytes", read(fd, &byte, 1));
    }
    puts("}");
}

int main(int argc, char **argv)
{
    long call[7] = {0};

    if (argc == 1) {
        report();
        return 0;
    }
    for (int i = 2; i < argc && i < 9; i++)
        if (!strncmp(argv[1], "syscall", 7) || !strcmp(argv[1], "sweep"))
            call[i - 2] = number_of(argv[i]);
    if (!strcmp(argv[1], "syscall") && argc > 2)
        printf("%d\n", in_child(call64, call));
    else if (!strcmp(argv[1], "syscall32") && argc > 2)
        printf("%d\n", in_child(call32, call));
    else if (!strcmp(argv[1], "socketcall32") && argc == 5)
        printf("%d\n", socketcall32(atoi(argv[2]), atoi(argv[3]), atoi(argv[4])));
    else if (!strcmp(argv[1], "sweep") && argc == 4)
        sweep(call[0], call[1]);
    else if (!strcmp(argv[1], "open-write"))
        open_write(argv + 2);
    else if (!strcmp(argv[1], "readable") && argc == 3)
        readable(argv[2]);
    else
        return 2;
    return 0;
}
