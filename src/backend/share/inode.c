/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/share/inode.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"

#define NS_PER_S 1000000000ll

struct node {
    u64 id;
    struct node_key key;
    mode_t type;
    int fd;              /* O_PATH, or -1: closed for now */
    unsigned users;      /* held so often */
    u64 refs;            /* by the guest */
    unsigned below;      /* nodes whose parent this is */
    bool kept;           /* has lost its name: the descriptor stays open */
    bool has_seen;       /* seen is filled in */
    struct node *parent; /* NULL: the root, or nowhere known */
    char *name;
    struct node *by_key, *by_id; /* hash chains */
    struct node *newer, *older;  /* list of the open and idle ones */
    struct node *path_next;      /* while it is opened again */
    struct {
        struct timespec mtime, ctime;
        off_t size;
    } seen;
};

#define BUCKETS 65536u

struct node_table {
    pthread_mutex_t lock;
    struct node_limits limits;
    struct node *root;
    u64 next_id;
    unsigned nodes, fds, kept;
    struct node *newest, *oldest;
    struct node *by_key[BUCKETS], *by_id[BUCKETS];
};

/* --- hash chains ---------------------------------------------------------------------------------
 */

static unsigned bucket(u64 v)
{
    return (unsigned)((v * 0x9e3779b97f4a7c15ull) >> 48);
}

static unsigned key_bucket(const struct node_key *k)
{
    return bucket(k->ino ^ ((u64)k->dev << 40));
}

static bool same_key(const struct node_key *a, const struct node_key *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->born == b->born;
}

static struct node *find_id(struct node_table *t, u64 id)
{
    struct node *n = t->by_id[bucket(id)];

    while (n && n->id != id)
        n = n->by_id;
    return n;
}

static struct node *find_key(struct node_table *t, const struct node_key *k, mode_t type)
{
    struct node *n = t->by_key[key_bucket(k)];

    while (n && !(same_key(&n->key, k) && n->type == type))
        n = n->by_key;
    return n;
}

static void link_node(struct node_table *t, struct node *n)
{
    struct node **k = &t->by_key[key_bucket(&n->key)], **i = &t->by_id[bucket(n->id)];

    n->by_key = *k;
    *k = n;
    n->by_id = *i;
    *i = n;
    t->nodes++;
}

static void unlink_node(struct node_table *t, struct node *n)
{
    struct node **k = &t->by_key[key_bucket(&n->key)], **i = &t->by_id[bucket(n->id)];

    while (*k != n)
        k = &(*k)->by_key;
    *k = n->by_key;
    while (*i != n)
        i = &(*i)->by_id;
    *i = n->by_id;
    t->nodes--;
}

/* --- which descriptors are open ------------------------------------------------------------------
 */

static bool evictable(const struct node *n)
{
    return n->fd >= 0 && !n->users && !n->kept && n->parent;
}

static void list_add(struct node_table *t, struct node *n)
{
    n->newer = NULL;
    n->older = t->newest;
    if (t->newest)
        t->newest->newer = n;
    else
        t->oldest = n;
    t->newest = n;
}

static void list_del(struct node_table *t, struct node *n)
{
    if (n->newer)
        n->newer->older = n->older;
    else
        t->newest = n->older;
    if (n->older)
        n->older->newer = n->newer;
    else
        t->oldest = n->newer;
}

static void close_node(struct node_table *t, struct node *n)
{
    close(n->fd);
    n->fd = -1;
    t->fds--;
}

/* Room for one more descriptor: 0 or -ENFILE. */
static int make_room(struct node_table *t)
{
    while (t->fds >= t->limits.fds && t->oldest) {
        struct node *n = t->oldest;

        list_del(t, n);
        close_node(t, n);
    }
    return t->fds < t->limits.fds ? 0 : -ENFILE;
}

static void hold(struct node_table *t, struct node *n)
{
    if (evictable(n))
        list_del(t, n);
    n->users++;
}

static void free_node(struct node_table *t, struct node *n);

/* Nobody holds it or refers to it any more: gone, and so may be the directories above. */
static void drop_unused(struct node_table *t, struct node *n)
{
    while (n && n != t->root && !n->users && !n->refs && !n->below) {
        struct node *parent = n->parent;

        free_node(t, n);
        n = parent;
    }
}

static void release(struct node_table *t, struct node *n)
{
    n->users--;
    if (evictable(n))
        list_add(t, n);
    drop_unused(t, n);
}

/* n is idle. Its parent may be unused then. */
static void free_node(struct node_table *t, struct node *n)
{
    if (evictable(n))
        list_del(t, n);
    unlink_node(t, n);
    if (n->fd >= 0)
        close_node(t, n);
    t->kept -= n->kept;
    if (n->parent)
        n->parent->below--;
    free(n->name);
    free(n);
}

/* --- where a node is -----------------------------------------------------------------------------
 */

/* False: that would make a loop of directories, which a host that renames them under our eyes can
 * suggest. */
static bool may_be_below(const struct node_table *t, const struct node *n, const struct node *dir)
{
    if (n->type != S_IFDIR)
        return true;
    for (; dir && dir != t->root; dir = dir->parent)
        if (dir == n)
            return false;
    return n != t->root;
}

/* n, held, is `name` in dir. Without memory it stays what it was: opening it again may fail. */
static void set_place(struct node_table *t, struct node *n, struct node *dir, const char *name)
{
    struct node *old = n->parent;
    char *copy;

    if (n->parent == dir && n->name && !strcmp(n->name, name) && !n->kept)
        return;
    if (!may_be_below(t, n, dir))
        return;
    copy = strdup(name);
    if (!copy)
        return;
    free(n->name);
    n->name = copy;
    n->parent = dir;
    dir->below++;
    if (n->kept) {
        n->kept = false;
        t->kept--;
    }
    if (old) {
        old->below--;
        drop_unused(t, old);
    }
}

int node_stat(int fd, struct stat *st, struct node_key *key)
{
    struct statx x;

    if (statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
              STATX_BASIC_STATS | STATX_BTIME, &x))
        return -errno;
    *st = (struct stat){
        .st_dev = makedev(x.stx_dev_major, x.stx_dev_minor),
        .st_ino = x.stx_ino,
        .st_mode = x.stx_mode,
        .st_nlink = x.stx_nlink,
        .st_uid = x.stx_uid,
        .st_gid = x.stx_gid,
        .st_rdev = makedev(x.stx_rdev_major, x.stx_rdev_minor),
        .st_size = (off_t)x.stx_size,
        .st_blksize = (blksize_t)x.stx_blksize,
        .st_blocks = (blkcnt_t)x.stx_blocks,
        .st_atim = {x.stx_atime.tv_sec, x.stx_atime.tv_nsec},
        .st_mtim = {x.stx_mtime.tv_sec, x.stx_mtime.tv_nsec},
        .st_ctim = {x.stx_ctime.tv_sec, x.stx_ctime.tv_nsec},
    };
    *key = (struct node_key){.dev = st->st_dev, .ino = st->st_ino};
    if (x.stx_mask & STATX_BTIME)
        key->born = x.stx_btime.tv_sec * NS_PER_S + x.stx_btime.tv_nsec;
    return 0;
}

/* A component below an open directory, whatever it is but never what a symbolic link points to. */
static int open_below(const struct node *dir, const char *name)
{
    int fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* One node whose parent is open. */
static int reopen_one(struct node_table *t, struct node *n)
{
    struct node_key key;
    struct stat st;
    int fd, err = make_room(t);

    if (err)
        return err;
    fd = open_below(n->parent, n->name);
    if (fd < 0)
        return fd == -ENOENT || fd == -ENOTDIR ? -ESTALE : fd;
    err = node_stat(fd, &st, &key);
    if (!err && (!same_key(&key, &n->key) || (st.st_mode & S_IFMT) != n->type))
        err = -ESTALE;
    if (err) {
        close(fd);
        return err;
    }
    n->fd = fd;
    t->fds++;
    return 0;
}

/* Opens n, which nobody's list holds, and what is above it as far as needed. Those above are held
 * meanwhile, so that opening one does not close another. */
static int reopen(struct node_table *t, struct node *n)
{
    struct node *path = NULL;
    int err = 0;

    while (n->fd < 0) {
        if (!n->parent || !n->name) {
            err = -ESTALE;
            break;
        }
        n->path_next = path;
        path = n;
        n = n->parent;
        hold(t, n);
    }
    /* n is open and held, but for the error; path leads down from it. Every node of it but the last
     * is held. */
    if (!path)
        return err;
    while (path) {
        if (!err)
            err = reopen_one(t, path);
        release(t, n);
        n = path;
        path = n->path_next;
    }
    return err;
}

/* --- the table -----------------------------------------------------------------------------------
 */

struct node_table *nodes_create(int root, const struct node_limits *limits, int *err)
{
    struct node_table *t = calloc(1, sizeof(*t));
    struct node *n = calloc(1, sizeof(*n));
    struct stat st;

    *err = -ENOMEM;
    if (t && n)
        *err = node_stat(root, &st, &n->key);
    if (!*err && !S_ISDIR(st.st_mode))
        *err = -ENOTDIR;
    if (*err) {
        free(t);
        free(n);
        return NULL;
    }
    pthread_mutex_init(&t->lock, NULL);
    t->limits = *limits;
    if (t->limits.fds < 16)
        t->limits.fds = 16;
    n->id = NODE_ROOT;
    n->type = S_IFDIR;
    n->fd = root;
    n->refs = 1;
    t->root = n;
    t->next_id = NODE_ROOT + 1;
    t->fds = 1;
    link_node(t, n);
    return t;
}

void nodes_clear(struct node_table *t)
{
    pthread_mutex_lock(&t->lock);
    /* A pass frees the nodes with nothing below them, and what is above as it becomes unused. */
    for (unsigned i = 0; i < BUCKETS; i++)
        for (struct node *n = t->by_id[i]; n; n = n->by_id)
            if (n != t->root)
                n->refs = 0;
    for (unsigned i = 0; i < BUCKETS; i++) {
        struct node *n = t->by_id[i];

        while (n) {
            if (n == t->root || n->below || n->users) {
                n = n->by_id;
                continue;
            }
            drop_unused(t, n);
            n = t->by_id[i]; /* the chain has changed */
        }
    }
    pthread_mutex_unlock(&t->lock);
}

void nodes_destroy(struct node_table *t)
{
    if (!t)
        return;
    nodes_clear(t);
    CHECK(t->nodes == 1);
    close(t->root->fd);
    free(t->root);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

struct node *node_get(struct node_table *t, u64 id, int *err)
{
    struct node *n;

    pthread_mutex_lock(&t->lock);
    n = find_id(t, id);
    *err = n ? 0 : -ESTALE;
    if (n) {
        hold(t, n);
        if (n->fd < 0)
            *err = reopen(t, n);
        if (*err) {
            release(t, n);
            n = NULL;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return n;
}

void node_put(struct node_table *t, struct node *n)
{
    if (!n)
        return;
    pthread_mutex_lock(&t->lock);
    release(t, n);
    pthread_mutex_unlock(&t->lock);
}

int node_fd(const struct node *n)
{
    return n->fd;
}

u64 node_id(const struct node *n)
{
    return n->id;
}

mode_t node_type(const struct node *n)
{
    return n->type;
}

/* The node of a file that was just opened; fd is used or closed. Held. */
static struct node *enter(struct node_table *t, int fd, const struct node_key *key, mode_t type,
                          int *err)
{
    struct node *n = find_key(t, key, type);

    *err = 0;
    if (n) {
        hold(t, n);
        if (n->fd < 0 && !make_room(t)) {
            n->fd = fd;
            t->fds++;
        } else {
            close(fd);
        }
        return n;
    }
    *err = t->nodes < t->limits.nodes ? make_room(t) : -ENFILE;
    n = *err ? NULL : calloc(1, sizeof(*n));
    if (!n) {
        *err = *err ? *err : -ENOMEM;
        close(fd);
        return NULL;
    }
    n->id = t->next_id++;
    n->key = *key;
    n->type = type;
    n->fd = fd;
    n->users = 1;
    t->fds++;
    link_node(t, n);
    return n;
}

int node_lookup(struct node_table *t, struct node *dir, const char *name, u64 *id, struct stat *st)
{
    struct node_key key;
    struct node *n;
    int fd, err;

    if (dir->type != S_IFDIR)
        return -ENOTDIR;
    fd = open_below(dir, name);
    if (fd < 0)
        return fd;
    err = node_stat(fd, st, &key);
    if (err) {
        close(fd);
        return err;
    }
    pthread_mutex_lock(&t->lock);
    n = enter(t, fd, &key, st->st_mode & S_IFMT, &err);
    if (n) {
        n->refs++;
        set_place(t, n, dir, name);
        *id = n->id;
        release(t, n);
    }
    pthread_mutex_unlock(&t->lock);
    return err;
}

void node_forget(struct node_table *t, u64 id, u64 count)
{
    struct node *n;

    pthread_mutex_lock(&t->lock);
    n = find_id(t, id);
    if (n && n != t->root) {
        n->refs -= count < n->refs ? count : n->refs;
        drop_unused(t, n);
    }
    pthread_mutex_unlock(&t->lock);
}

struct node *node_named(struct node_table *t, struct node *dir, const char *name, bool keep)
{
    struct node_key key;
    struct node *n;
    struct stat st;
    int fd;

    if (dir->type != S_IFDIR)
        return NULL;
    fd = open_below(dir, name);
    if (fd < 0)
        return NULL;
    if (node_stat(fd, &st, &key)) {
        close(fd);
        return NULL;
    }
    pthread_mutex_lock(&t->lock);
    n = find_key(t, &key, st.st_mode & S_IFMT);
    if (n) {
        hold(t, n);
        if (n->fd < 0 && !make_room(t)) {
            n->fd = fd;
            t->fds++;
            fd = -1;
        }
        /* A guest cannot use up all descriptors with deleted files. */
        if (keep && n->fd >= 0 && !n->kept && n != t->root && t->kept < t->limits.fds / 2) {
            n->kept = true;
            t->kept++;
        }
    }
    pthread_mutex_unlock(&t->lock);
    if (fd >= 0)
        close(fd);
    return n;
}

void node_renamed(struct node_table *t, struct node *n, struct node *dir, const char *name)
{
    pthread_mutex_lock(&t->lock);
    set_place(t, n, dir, name);
    pthread_mutex_unlock(&t->lock);
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool node_unchanged(struct node_table *t, struct node *n, const struct stat *st)
{
    struct timespec now;
    bool same;

    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    pthread_mutex_lock(&t->lock);
    same = n->has_seen && same_time(&n->seen.mtime, &st->st_mtim) &&
           same_time(&n->seen.ctime, &st->st_ctim) && n->seen.size == st->st_size;
    n->seen.mtime = st->st_mtim;
    n->seen.ctime = st->st_ctim;
    n->seen.size = st->st_size;
    /* Times are coarse: a file that changed just now may change again without showing it. */
    n->has_seen = now.tv_sec - st->st_ctim.tv_sec > 2;
    pthread_mutex_unlock(&t->lock);
    return same;
}

void nodes_count(struct node_table *t, unsigned *nodes, unsigned *fds)
{
    pthread_mutex_lock(&t->lock);
    *nodes = t->nodes;
    *fds = t->fds;
    pthread_mutex_unlock(&t->lock);
}
