/* SPDX-License-Identifier: Apache-2.0 */
/* The table: everything `trivisor run` can be told. */
#include <string.h>

#include "base/commas.h"
#include "config/config.h"

#define MIB (1ull << 20)
#define ALNUM "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
#define FIELD(f) offsetof(struct config, f)

static const char *check_serial_log(const char *v)
{
    const char *size = strstr(v, ",size=");
    u64 bytes;

    if (!*v || size == v)
        return "log: needs a path";
    if (size && (config_parse_memory(size + strlen(",size="), &bytes) || bytes < 64 << 10 ||
                 bytes > 256 * MIB))
        return "size is 64K to 256M";
    return NULL;
}

static const char *check_serial(const char *v)
{
    if (!strcmp(v, "stdio") || !strcmp(v, "null") || !strcmp(v, "pty"))
        return NULL;
    if (!strncmp(v, "file:", 5))
        return v[5] ? NULL : "file: needs a path";
    if (!strncmp(v, "unix:", 5))
        return v[5] ? NULL : "unix: needs a path";
    if (!strncmp(v, "log:", 4))
        return check_serial_log(v + 4);
    return "it is stdio, null, pty, file:PATH, log:PATH or unix:PATH";
}

static bool file_of_host(const char *where)
{
    return strcmp(where, "stdio") != 0 && strcmp(where, "null") != 0 && strcmp(where, "pty") != 0;
}

static bool port_of_host(const char *v)
{
    const char *where = strchr(v, '=');

    return !where || file_of_host(where + 1);
}

static bool any_of_host(const char *v)
{
    (void)v;
    return true;
}

/* A host name alone is no file. */
static bool seed_of_host(const char *v)
{
    static const char hostname[] = "hostname=";

    return strncmp(v, hostname, sizeof(hostname) - 1) != 0 || strchr(v, ',');
}

/* A name is part of file names and of lines people read. */
static const char *check_name(const char *v)
{
    size_t n = strlen(v);

    if (n && n <= 64 && v[strspn(v, ALNUM "_.-")] == 0 && strchr(ALNUM, v[0]))
        return NULL;
    return "a name is 1 to 64 letters, digits and _ . - and begins with a letter or digit";
}

static const char *check_balloon(const char *v)
{
    u64 bytes;

    if (!strcmp(v, "on") || !strcmp(v, "off") || !config_parse_memory(v, &bytes))
        return NULL;
    return "it is on, off or a size such as 256M";
}

static const char *check_port(const char *v)
{
    const char *where = strchr(v, '=');
    size_t n = where ? (size_t)(where - v) : 0;

    if (!n || n > 64 || memchr(v, '/', n))
        return "it is NAME=WHERE, the name 1 to 64 characters other than = and /";
    where++;
    if (!strncmp(where, "unix:", 5))
        return where[5] ? NULL : "unix: needs a path";
    if (!strcmp(where, "stdio") || !strcmp(where, "null"))
        return NULL;
    if (!strncmp(where, "file:", 5))
        return where[5] ? NULL : "file: needs a path";
    return "WHERE is unix:PATH, stdio, null or file:PATH";
}

static const char *check_not_empty(const char *v)
{
    return *v ? NULL : "it is empty";
}

/* Where the parts of HOST:GUEST[:ro|:rw] are is the backend's to say. */
static const char *check_share(const char *v)
{
    return strchr(v, ':') ? NULL : "it is HOST:GUEST, HOST:GUEST:ro or HOST:GUEST:rw";
}

static const char *check_virtio_without(const char *v)
{
    char item[64];

    while (v)
        if (commas_next(&v, item, sizeof(item)) < 0 ||
            (strcmp(item, "packed") != 0 && strcmp(item, "event-idx") != 0 &&
             strcmp(item, "indirect") != 0 && strcmp(item, "msix") != 0))
            return "it is a list of packed, event-idx, indirect and msix";
    return NULL;
}

/* Which features and hosts there are is known where the CPU is made. */
static const char *check_cpu(const char *v)
{
    char item[64];
    bool first = true;

    for (; v; first = false) {
        int n = commas_next(&v, item, sizeof(item));

        if (n < 0)
            return "a name in it is too long";
        if (first ? strcmp(item, "host") != 0 && strcmp(item, "common") != 0 &&
                        strcmp(item, "x86-64-v2") != 0 && strcmp(item, "x86-64-v3") != 0 &&
                        strcmp(item, "x86-64-v4") != 0
                  : (item[0] != '+' && item[0] != '-') || !item[1])
            return "it is host, common, x86-64-v2, x86-64-v3 or x86-64-v4, with +FEATURE and "
                   "-FEATURE after commas";
    }
    return NULL;
}

/* The rest is said when the network is opened. */
static const char *check_net(const char *v)
{
    if (!strcmp(v, "none") || !strncmp(v, "user", 4) || !strncmp(v, "tap=", 4))
        return NULL;
    return "it is user, tap=INTERFACE or none, with options after commas";
}

/* The zero page's and Multiboot's command lines are NUL-terminated text; the kernel's own limit is
 * checked when it is loaded. */
static const char *check_append(const char *v)
{
    return strlen(v) < 65536 ? NULL : "it is longer than 65535 bytes";
}

/* What the keys mean is known where disks are opened. */
static const char *check_disk(const char *v)
{
    char item[4096];

    switch (commas_next(&v, item, sizeof(item))) {
    case 0:
        return "a disk needs a path";
    case COMMAS_TOO_LONG:
        return "the path is too long";
    default:
        return NULL;
    }
}

const struct option_row config_options[] = {
    {.name = "engine",
     .type = OPTION_CHOICE,
     .field = FIELD(engine),
     .arg = "ENGINE",
     .choices = "auto|bt|pv|kvm",
     .value = "auto",
     .env = "TRIVISOR_ENGINE",
     .help =
         "How guest code runs: bt translates it in software and needs nothing of the host; kvm "
         "runs it on the CPU itself and needs VT-x or AMD-V and the right to use /dev/kvm; auto "
         "takes the faster of those that work here and says which: when it has to be measured "
         "that is done once a boot of the host, in some milliseconds. pv is not built in this "
         "version and is refused."},
    {.name = "memory",
     .letter = 'm',
     .type = OPTION_MEMORY,
     .field = FIELD(memory),
     .arg = "SIZE",
     .min = 2 * MIB,
     .max = 1ull << 40,
     .value = "512M",
     .saved = OPTION_MACHINE,
     .help = "Guest memory, with a suffix K, M, G or T; a plain number is MiB."},
    {.name = "cpus",
     .letter = 'c',
     .type = OPTION_NUMBER,
     .field = FIELD(cpus),
     .arg = "N",
     .min = 1,
     .max = 8,
     .value = "1",
     .saved = OPTION_MACHINE,
     .help = "Number of virtual CPUs."},
    {.name = "cpu",
     .type = OPTION_STRING,
     .field = FIELD(cpu),
     .arg = "MODEL",
     .value = "host",
     .check = check_cpu,
     .help = "What CPU the guest sees: host, all that this host and the engine can give; common, "
             "what every engine can give on this host, so that a saved machine can go on with "
             "another engine; x86-64-v2, x86-64-v3 or x86-64-v4, a CPU of that level of the "
             "x86-64 psABI that is the same on every host of a vendor (the vendor stays the "
             "host's). +FEATURE and -FEATURE after commas add one and take one away, with all "
             "that depends on it: host,-avx512f. Features have the names of Linux' "
             "/proc/cpuinfo. What this host cannot give is refused."},
    {.name = "kernel",
     .letter = 'k',
     .type = OPTION_STRING,
     .field = FIELD(kernel),
     .arg = "FILE",
     .check = check_not_empty,
     .saved = OPTION_START,
     .help = "What to boot: a Linux bzImage, an ELF image with a PVH entry note, or a Multiboot 1 "
             "image."},
    {.name = "initrd",
     .letter = 'i',
     .type = OPTION_STRING,
     .field = FIELD(initrd),
     .arg = "FILE",
     .check = check_not_empty,
     .saved = OPTION_START,
     .help = "Initial RAM disk. For a Multiboot image: a list of modules, each with its arguments, "
             "separated by commas (FILE ARGS,FILE2 ARGS); two commas stand for one in a name."},
    {.name = "append",
     .letter = 'a',
     .type = OPTION_STRING,
     .field = FIELD(append),
     .arg = "TEXT",
     .check = check_append,
     .saved = OPTION_START,
     .help = "The kernel's command line. Without this a bzImage gets console=ttyS0 (console=hvc0 "
             "with --virtio-console stdio); a kernel of the disk's, what its boot loader says, "
             "and this after it."},
    {.name = "serial",
     .type = OPTION_STRING,
     .field = FIELD(serial),
     .arg = "WHERE",
     .value = "stdio",
     .check = check_serial,
     .saved = OPTION_BEHIND,
     .of_host = file_of_host,
     .help =
         "What the first serial port (COM1) is connected to: stdio; null; pty (a pseudo-terminal, "
         "its path is printed); unix:PATH (a socket that listens there, for one at a time); "
         "file:PATH (output only, the file is overwritten, unless somebody uses it, as a disk for "
         "instance); log:PATH[,size=SIZE] (the same, but "
         "the file never grows beyond SIZE, 10M if not given: its older half goes). Whatever it "
         "is, trivisor console attaches to it too."},
    {.name = "console-log",
     .type = OPTION_MEMORY,
     .field = FIELD(console_log),
     .arg = "SIZE",
     .min = 64 << 10,
     .max = 256 * MIB,
     .value = "1M",
     .help = "How much of the serial port's last output is kept for those who attach later."},
    {.name = "name",
     .type = OPTION_STRING,
     .field = FIELD(name),
     .arg = "NAME",
     .check = check_name,
     .help = "The machine's name, for trivisor console, stop and others. Without it the name is "
             "trivisor-PID."},
    {.name = "detach",
     .type = OPTION_FLAG,
     .field = FIELD(detach),
     .help = "Start the machine in the background, print its name and return when it runs. Its "
             "console is reached with trivisor console."},
    {.name = "cloud-init",
     .type = OPTION_STRING,
     .field = FIELD(cloud_init),
     .arg = "KEY=VALUE,...",
     .saved = OPTION_BEHIND,
     .of_host = seed_of_host,
     .help = "Give the guest a read-only disk, behind all others, that tells cloud-init what to do "
             "(its NoCloud source, label cidata). Keys: user-data=FILE, meta-data=FILE, "
             "network-config=FILE; without meta-data, hostname=NAME and ssh-key=FILE (a public "
             "key for the image's user). Two commas stand for one in a value."},
    {.name = "rng",
     .type = OPTION_CHOICE,
     .field = FIELD(rng),
     .arg = "on|off",
     .choices = "on|off",
     .value = "on",
     .saved = OPTION_MACHINE,
     .help = "A source of random numbers for the guest (virtio-rng), fed by the host's."},
    {.name = "share",
     .letter = 'v',
     .type = OPTION_LIST,
     .field = FIELD(share),
     .arg = "HOST:GUEST[:ro|:rw]",
     .check = check_share,
     .saved = OPTION_BEHIND,
     .of_host = any_of_host,
     .help = "Share the directory HOST with the guest. GUEST, up to 36 bytes, is "
             "the guest's name for it: mount -t virtiofs GUEST DIR. A path such as /mnt/src is a "
             "good one, to be mounted there. ro: the guest cannot change anything in it; rw: it "
             "can, as "
             "without either. Files "
             "belong to the user who runs this program, who must be able to reach them; links "
             "that point out of HOST lead nowhere on the host."},
    {.name = "disk",
     .letter = 'd',
     .type = OPTION_LIST,
     .field = FIELD(disk),
     .arg = "PATH[,KEY=VALUE...]",
     .check = check_disk,
     .saved = OPTION_BEHIND,
     .help =
         "A disk: an image file or a block device of the host. Keys: format=raw or qcow2; ro: "
         "the guest may only read; id=NAME for messages; serial=TEXT, up to 20 characters the "
         "guest sees; cache=writeback or unsafe (flushes are ignored); discard=on or off: "
         "what the guest discards is given back to the host; queues=N; doorbell=on or off: with "
         "engine kvm the guest's notifications wake the disk's threads and leave its vCPU "
         "alone; irqfd=on or off: with engine kvm the disk's interrupts go through eventfds. Two "
         "commas stand for one in a path. Without format=, an image is qcow2 when its "
         "name ends in .qcow2 and "
         "raw otherwise; contents that say something else are refused, never interpreted."},
    {.name = "net",
     .letter = 'n',
     .type = OPTION_LIST,
     .field = FIELD(net),
     .arg = "NETWORK",
     .check = check_net,
     .saved = OPTION_BEHIND,
     .help = "A network interface of the guest's (virtio); none when neither this nor --publish is "
             "given. user needs no privilege: the guest reaches what this host reaches, by way of "
             "a process that translates; it is 10.0.2.15 (DHCP), the host 10.0.2.2, a name server "
             "10.0.2.3. tap=IF is the tap device IF of the host, made if it is not there. none is "
             "none. After commas, for both: mac=ADDRESS, mtu=BYTES; for user: net=ADDRESS/BITS, "
             "dns=ADDRESS (the name server the guest is told), hostname=NAME, restrict=on (the "
             "guest reaches nothing, published ports work), publish=PORT (as --publish, for this "
             "network); for tap: queues=N."},
    {.name = "publish",
     .letter = 'p',
     .type = OPTION_LIST,
     .field = FIELD(publish),
     .arg = "PORT",
     .check = check_not_empty,
     .saved = OPTION_BEHIND,
     .help = "Lets the host's port lead to the guest's: [udp:][HOSTADDRESS:]HOSTPORT:GUESTPORT, "
             "such as 2222:22 or 127.0.0.1:8080:80. Without an address on all of the host's. Goes "
             "with the first user network, and makes one when no --net is given."},
    {.name = "vsock",
     .type = OPTION_STRING,
     .field = FIELD(vsock),
     .arg = "PATH[,cid=N]",
     .check = check_not_empty,
     .saved = OPTION_BEHIND,
     .of_host = any_of_host,
     .help = "Stream sockets (AF_VSOCK) between programs in the guest and on the host, with Unix "
             "sockets on the host's side, as Firecracker has them. A program on the host connects "
             "to PATH, sends CONNECT PORT and a new line, reads a line OK N, and is connected "
             "with the guest's port. A program in the guest that connects to port PORT of the "
             "host (CID 2) reaches the one that listens at PATH_PORT. cid=N is the guest's own "
             "address, 3 if not given."},
    {.name = "balloon",
     .type = OPTION_STRING,
     .field = FIELD(balloon),
     .arg = "on|off|SIZE",
     .value = "on",
     .check = check_balloon,
     .saved = OPTION_MACHINE,
     .help = "Lets the guest give memory back to the host (virtio-balloon): on, what it has freed, "
             "some seconds later. With a SIZE it is asked to do without so much of its memory from "
             "the start, as far as it can; a plain number is MiB."},
    {.name = "virtio-console",
     .type = OPTION_STRING,
     .field = FIELD(virtio_console),
     .arg = "WHERE",
     .check = check_serial,
     .saved = OPTION_BEHIND,
     .of_host = file_of_host,
     .help = "A virtio console, console=hvc0 to a Linux kernel, which unlike a serial port "
             "knows the terminal's size. What it is connected to is named as for --serial; for "
             "stdio, give the serial port another place (--serial null)."},
    {.name = "port",
     .type = OPTION_LIST,
     .field = FIELD(port),
     .arg = "NAME=WHERE",
     .check = check_port,
     .saved = OPTION_BEHIND,
     .of_host = port_of_host,
     .help =
         "A channel between a program in the guest, which opens /dev/virtio-ports/NAME, and one "
         "on the host. WHERE is unix:PATH (a socket that listens there, for one at a time), "
         "stdio, null, or file:PATH (output only, the file is overwritten). Nothing is lost "
         "when one side is slow. 8 of them at most."},
    {.name = "virtio-without",
     .type = OPTION_STRING,
     .field = FIELD(virtio_without),
     .arg = "LIST",
     .check = check_virtio_without,
     .saved = OPTION_MACHINE,
     .help = "What virtio devices do not offer the guest, for drivers that have trouble with it: a "
             "list of packed (rings are split ones then), event-idx, indirect (descriptors) and "
             "msix (interrupts are the four lines of the PCI bus then)."},
    {.name = "bt-mode",
     .type = OPTION_CHOICE,
     .field = FIELD(bt_mode),
     .arg = "MODE",
     .choices = "auto|soft|interp|lockstep",
     .value = "auto",
     .help = "How engine bt runs guest code: soft translates, interp interprets every instruction. "
             "lockstep does both, compares, and stops at the first difference (-c 1; slow). auto "
             "is soft."},
    {.name = "bt-cache",
     .type = OPTION_MEMORY,
     .field = FIELD(bt_cache),
     .arg = "SIZE",
     .min = 1 * MIB,
     .max = 1024 * MIB,
     .value = "112M",
     .help = "How much translated code engine bt keeps at most; about twice as much memory can be "
             "in use for it. What a guest does not run takes none."},
    {.name = "sandbox",
     .type = OPTION_CHOICE,
     .field = FIELD(sandbox),
     .arg = "MODE",
     .choices = "on|off",
     .value = "on",
     .help = "Whether the process gives up its rights before guest code runs: capabilities, system "
             "calls it does not need (seccomp), files and other processes (Landlock, where the "
             "kernel has it). off is for debuggers and profilers."},
    {.name = "gdb",
     .type = OPTION_STRING,
     .field = FIELD(gdb),
     .arg = "WHERE",
     .check = check_not_empty,
     .help =
         "Serve gdb's remote protocol at [ADDRESS:]PORT (ADDRESS is 127.0.0.1 unless given; port "
         "0: a free one, which is printed) or unix:PATH. Whoever can connect controls the "
         "virtual machine. With ,wait after it the guest does not begin before a debugger lets "
         "it; with ,arch=i386 registers have the layout of 32-bit code."},
    {.name = "trace",
     .type = OPTION_STRING,
     .field = FIELD(trace),
     .arg = "LIST",
     .check = check_not_empty,
     .help = "What the engine logs on stderr, separated by commas. No engine of this version has "
             "anything to log."},
    {.name = "stats",
     .type = OPTION_FLAG,
     .field = FIELD(stats),
     .help =
         "Print the engine's counters on stderr when the guest has ended; what they count is in "
         "the manual."},
    {.name = "strict-io",
     .type = OPTION_FLAG,
     .field = FIELD(strict_io),
     .help = "Log accesses to ports and addresses that nothing claims."},
    {.name = "strict-msr",
     .type = OPTION_FLAG,
     .field = FIELD(strict_msr),
     .help = "Log accesses to model-specific registers that nothing implements."},
    {.name = "hide-kvm",
     .type = OPTION_FLAG,
     .field = FIELD(hide_kvm),
     .saved = OPTION_MACHINE,
     .help = "Do not offer the guest the paravirtual clock of KVM's CPUID leaves."},
    {.name = "test-device",
     .type = OPTION_FLAG,
     .field = FIELD(test_device),
     .saved = OPTION_MACHINE,
     .help = "Give the guest what QEMU calls pc-testdev: a register at port 0xe0, interrupt lines "
             "at ports 0x2000 to 0x2017, memory at 0xff000000. For suites that test an emulator "
             "from inside, such as kvm-unit-tests."},
    {.name = "dump-state",
     .type = OPTION_FLAG,
     .field = FIELD(dump_state),
     .help = "Print the registers of every virtual CPU on stderr when the guest has ended. They "
             "are always printed when the guest crashes."},
    {.name = "check",
     .type = OPTION_FLAG,
     .field = FIELD(check),
     .help = "Build the machine and load the kernel, but do not run it."},
    {.name = "quiet",
     .letter = 'q',
     .type = OPTION_FLAG,
     .field = FIELD(quiet),
     .help = "Print nothing but errors on stderr."},
    {.name = "verbose",
     .type = OPTION_FLAG,
     .field = FIELD(verbose),
     .help = "Print debugging messages on stderr."},
    {.name = "help",
     .letter = 'h',
     .type = OPTION_FLAG,
     .field = FIELD(help),
     .help = "Print this help."},
    {.name = "dump-options",
     .type = OPTION_FLAG,
     .field = FIELD(dump_options),
     .help = "Print the options, one a line, for programs: name, letter, type, argument, allowed "
             "values, default."},
};

const size_t config_n_options = ARRAY_SIZE(config_options);
