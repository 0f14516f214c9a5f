/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Measures a directory: share DIR [SCALE]. Runs in a guest on a shared directory, and on the host
 * on the same one. One line a measurement: "share NAME VALUE UNIT". Where the guest's page cache
 * would answer, it is dropped first, so that the share does.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIB (1u << 20)
#define FILES_PER_DIR 50

static char buffer[MIB];
static unsigned scale = 4;

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void check(int r, const char *what)
{
    if (r < 0)
        fail(what);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void say(const char *name, double value, const char *unit)
{
    printf("share %-12s %10.1f %s\n", name, value, unit);
    fflush(stdout);
}

/* On the host as well when root measures there: the disk's cache is not dropped then, it is not
 * what is measured; see main. */
static void drop_caches(void)
{
    int fd;

    if (!getenv("SHARE_GUEST"))
        return;
    fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (fd < 0 || write(fd, "3", 1) != 1)
        fail("drop_caches");
    close(fd);
}

static void write_file(const char *name, size_t total, size_t piece)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    check(fd, name);
    for (size_t done = 0; done < total; done += piece)
        if (write(fd, buffer, piece) != (ssize_t)piece)
            fail(name);
    close(fd);
}

static size_t read_file(const char *name)
{
    int fd = open(name, O_RDONLY);
    size_t total = 0;
    ssize_t n;

    check(fd, name);
    while ((n = read(fd, buffer, sizeof(buffer))) > 0)
        total += (size_t)n;
    if (n < 0)
        fail(name);
    close(fd);
    return total;
}

static void sequential(void)
{
    size_t total = (size_t)scale * 16 * MIB;
    double t = now();

    write_file("big", total, MIB);
    say("write", (double)total / MIB / (now() - t), "MiB/s");
    drop_caches();
    t = now();
    if (read_file("big") != total)
        fail("big");
    say("read", (double)total / MIB / (now() - t), "MiB/s");
}

static void small_pieces(void)
{
    unsigned n = scale * 500;
    double t = now();
    uint64_t r = 1;
    int fd;

    write_file("small", (size_t)n * 4096, 4096);
    say("write-4k", (now() - t) / n * 1e6, "us each");
    drop_caches();
    fd = open("big", O_RDONLY);
    check(fd, "big");
    posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    t = now();
    for (unsigned i = 0; i < n; i++) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        if (pread(fd, buffer, 4096, (off_t)((r >> 33) % (scale * 4096)) * 4096) != 4096)
            fail("pread");
    }
    say("read-4k", (now() - t) / n * 1e6, "us each");
    close(fd);
}

/* Names that are not there: each is one round trip. */
static void round_trips(void)
{
    unsigned n = scale * 500;
    double t = now();
    struct stat st;
    char name[32];

    for (unsigned i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "none%u", i);
        if (!stat(name, &st))
            fail(name);
    }
    say("round-trip", (now() - t) / n * 1e6, "us each");
}

static char *file_name(unsigned i)
{
    static char name[64];

    snprintf(name, sizeof(name), "tree/d%u/f%u", i / FILES_PER_DIR, i);
    return name;
}

static unsigned walk(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    char path[512];
    struct stat st;
    unsigned n = 0;

    if (!d)
        fail(dir);
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        check(lstat(path, &st), path);
        n++;
        if (S_ISDIR(st.st_mode))
            n += walk(path);
    }
    closedir(d);
    return n;
}

static void tree(void)
{
    unsigned n = scale * 250;
    char name[64];
    double t = now();

    check(mkdir("tree", 0755), "tree");
    for (unsigned i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "tree/d%u", i / FILES_PER_DIR);
        if (i % FILES_PER_DIR == 0)
            check(mkdir(name, 0755), name);
        write_file(file_name(i), 2048, 2048);
    }
    say("create", n / (now() - t), "files/s");
    drop_caches();
    t = now();
    if (walk("tree") < n)
        fail("walk");
    say("walk", n / (now() - t), "files/s");
    drop_caches();
    t = now();
    for (unsigned i = 0; i < n; i++)
        if (read_file(file_name(i)) != 2048)
            fail("read");
    say("read-files", n / (now() - t), "files/s");
}

/* What git does for a commit, much simplified: look at all files of a tree, write some objects
 * under names of their own and give them theirs, replace the index by a new one. */
static void commits(void)
{
    unsigned n = scale * 5;
    char tmp[64], name[64];
    double t = now();
    struct stat st;

    for (unsigned i = 0; i < n; i++) {
        for (unsigned f = 0; f < 100; f++)
            check(lstat(file_name(f), &st), "lstat");
        for (unsigned o = 0; o < 5; o++) {
            snprintf(tmp, sizeof(tmp), "tmp_obj%u", o);
            snprintf(name, sizeof(name), "obj%u-%u", i, o);
            write_file(tmp, 1024, 1024);
            check(chmod(tmp, 0444), "chmod");
            check(rename(tmp, name), "rename");
        }
        write_file("index.lock", 65536, 8192);
        check(rename("index.lock", "index"), "rename");
        read_file("index");
    }
    say("commit", n / (now() - t), "commits/s");
}

static unsigned remove_all(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    char path[512];
    unsigned n = 0;

    if (!d)
        fail(dir);
    while ((e = readdir(d)) != NULL) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        n++;
        if (unlink(path)) {
            n += remove_all(path);
            check(rmdir(path), path);
        }
    }
    closedir(d);
    return n;
}

int main(int argc, char **argv)
{
    double t;
    unsigned n;

    if (argc < 2) {
        fprintf(stderr, "usage: share DIR [SCALE], SHARE_GUEST=1 in a guest\n");
        return 2;
    }
    if (argc > 2)
        scale = (unsigned)atoi(argv[2]);
    check(chdir(argv[1]), argv[1]);
    memset(buffer, 'x', sizeof(buffer));
    round_trips();
    sequential();
    small_pieces();
    tree();
    commits();
    t = now();
    n = remove_all(".");
    say("remove", n / (now() - t), "files/s");
    printf("share-done\n");
    return 0;
}
