/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "modules.h"

#define DIRECTORY "/lib/modules"
#define MODULES_MAX 64
#define ALIASES_MAX 32

/* A line of the index: NAME, what it needs (A,B or -), and patterns of what it is asked for by. */
struct module {
    char *name, *needs;
    char *alias[ALIASES_MAX];
    unsigned naliases;
    bool loaded;
};

static struct module module[MODULES_MAX];
static unsigned nmodules;

static void read_index(void)
{
    static bool done;
    FILE *f = done ? NULL : fopen(DIRECTORY "/index", "r");
    char *line = NULL;
    size_t size = 0;

    done = true;
    if (!f)
        return;
    /* The lines are kept: the table points into them. */
    while (nmodules < MODULES_MAX && getline(&line, &size, f) > 0) {
        struct module *m = &module[nmodules++];
        char *save, *word;

        m->name = strtok_r(line, " \n", &save);
        m->needs = strtok_r(NULL, " \n", &save);
        while (m->naliases < ALIASES_MAX && (word = strtok_r(NULL, " \n", &save)) != NULL)
            m->alias[m->naliases++] = word;
        line = NULL;
        size = 0;
    }
    free(line);
    fclose(f);
}

static bool same_name(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b))
            return false;
    return *a == *b;
}

static int load(struct module *m);

/* By name or alias; how many were found. */
static int load_matching(const char *what)
{
    int found = 0;

    for (unsigned i = 0; i < nmodules; i++) {
        struct module *m = &module[i];
        bool match = same_name(m->name, what);

        for (unsigned k = 0; !match && k < m->naliases; k++)
            match = !fnmatch(m->alias[k], what, 0);
        if (match && !load(m))
            found++;
    }
    return found;
}

static void load_list(const char *list)
{
    char *copy = strdup(list), *save, *word;

    if (!copy)
        return;
    for (word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save))
        if (!load_matching(word))
            printf("init: no module %s\n", word);
    free(copy);
}

static int load(struct module *m)
{
    char path[256];
    int fd, r;

    if (m->loaded)
        return 0;
    m->loaded = true;
    if (strcmp(m->needs, "-"))
        load_list(m->needs);
    snprintf(path, sizeof(path), DIRECTORY "/%s.ko", m->name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    r = fd < 0 ? -1 : (int)syscall(SYS_finit_module, fd, "", 0);
    if (r && errno != EEXIST) {
        printf("init: cannot load %s: %s\n", m->name, strerror(errno));
        r = -errno;
    } else {
        r = 0;
    }
    if (fd >= 0)
        close(fd);
    return r;
}

static void coldplug_bus(const char *bus)
{
    char path[512], alias[512];
    struct dirent *e;
    DIR *d;

    snprintf(path, sizeof(path), "/sys/bus/%s/devices", bus);
    d = opendir(path);
    while (d && (e = readdir(d)) != NULL) {
        FILE *f;

        snprintf(path, sizeof(path), "/sys/bus/%s/devices/%.200s/modalias", bus, e->d_name);
        f = e->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (!f)
            continue;
        if (fgets(alias, sizeof(alias), f)) {
            alias[strcspn(alias, "\n")] = '\0';
            load_matching(alias);
        }
        fclose(f);
    }
    if (d)
        closedir(d);
}

void modules_coldplug(const char *list)
{
    read_index();
    if (!nmodules)
        return;
    /* The first makes the devices of the second. */
    coldplug_bus("pci");
    coldplug_bus("virtio");
    if (list)
        load_list(list);
}

int modules_modprobe(int argc, char **argv)
{
    int status = 0;

    read_index();
    for (int i = 1; i < argc; i++)
        if (argv[i][0] != '-' && !load_matching(argv[i]))
            status = 1;
    return status;
}
