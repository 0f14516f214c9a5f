/* SPDX-License-Identifier: Apache-2.0 */
/* trivisor: the front end. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "commands.h"
#include "config/config.h"
#include "core/sandbox.h"
#include "host/init.h"

static int cmd_version(int argc, char **argv);
static int cmd_help(int argc, char **argv);

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments;
    const char *what; /* in the list of commands */
    const char *help; /* for trivisor help NAME; NULL: run's is longer */
} commands[] = {
    {"run", cmd_run, " [DISK] [options]", "boot a disk image or a kernel in a virtual machine",
     NULL},
    {"console", cmd_console, " [name]", "attach to a running machine, or list those that run",
     "Makes the terminal the console of the running machine NAME: its recent output is shown,\n"
     "then what comes. Several terminals may be at one console; all see it, all may type. The\n"
     "keys are those of trivisor run: C-a d leaves the machine running, C-a x ends it.\n\n"
     "Without a name: lists your running machines, name and process id, one a line."},
    {"ps", cmd_ps, " [--json]", "list the running machines and what they do",
     "Lists your running machines: name, process id, state (running, paused, or unknown for one\n"
     "that does not answer), engine, virtual CPUs, memory, and for how long they have run. With\n"
     "--json: an array of what docs/control.md says of status."},
    {"pause", cmd_pause, " NAME", "make a machine and its clock stand still",
     "The machine's virtual CPUs and its clock stand still until trivisor resume NAME. Pausing "
     "one\n"
     "that is paused already is nothing."},
    {"resume", cmd_resume, " NAME", "let a paused machine go on",
     "Lets a machine that was paused with trivisor pause go on. One that a debugger has stopped\n"
     "stays so."},
    {"stop", cmd_stop, " NAME [--timeout SECONDS]", "ask a machine's guest to shut down",
     "Presses the machine's power button and waits until the guest has shut down; for 60 seconds,\n"
     "or as many as --timeout says, after which it is left running and the exit status is 125.\n"
     "What the button does is up to the guest: systemd shuts down, others want acpid."},
    {"kill", cmd_kill, " NAME", "cut a machine's power",
     "Ends the machine at once, as C-a x does; the guest notices nothing, and what it has not\n"
     "flushed to its disks is lost. trivisor run's exit status is 137 then. A machine's process\n"
     "that does not answer is killed."},
    {"stats", cmd_stats, " NAME [--json]", "print a machine's counters",
     "Prints the counters that trivisor run --stats prints at the end, as they are now."},
    {"snapshot", cmd_snapshot, " NAME FILE [--stop] [--compress]", "save a machine to a file",
     "Writes the machine NAME, with its memory, to FILE, from which trivisor restore goes on "
     "later;\n"
     "it stands still meanwhile. With --stop it ends then, without the guest noticing; else it "
     "goes\n"
     "on. --compress takes longer, makes a smaller file, and restoring reads all of it.\n\n"
     "What is on its disks is not in FILE: restore refuses a disk that was written to since, as\n"
     "by a machine that went on. Connections of the guest's to others are lost. An older saved\n"
     "machine at FILE is replaced when the new one is whole."},
    {"restore", cmd_restore, " FILE [options]", "go on with a saved machine",
     "Goes on with the machine that trivisor snapshot wrote to FILE, which is read while it runs\n"
     "and must stay as it is. Any number of machines may begin from one FILE, each with disks of\n"
     "its own: the guest is told that it is another one now (VMGenID).\n\n"
     "Options are those of run. What the machine consists of is as it was saved, what is behind\n"
     "its devices may be given anew (--disk, --net, --publish, --serial, --virtio-console, "
     "--port,\n"
     "--share, --vsock, --cloud-init: all of a kind, if one), and --engine may be another: the\n"
     "guest goes on under it, if it gives what the guest's CPU had (--cpu common when it was\n"
     "started).\n\n"
     "Files of this host that FILE's options would have written, made, shared or shown to the\n"
     "guest are not taken from it, for it may be somebody else's: they are listed, and to be "
     "given\n"
     "again. Disks, networks and published ports are taken, and said."},
    {"plug", cmd_plug, " NAME -d DISK | -n NETWORK [-p PORT]...",
     "give a running machine a disk or a network",
     "Gives the machine NAME one more disk or network, which its guest finds by ACPI's hot-plug, "
     "and\n"
     "prints the id of the new device. DISK, NETWORK and PORT are those of trivisor run. There is\n"
     "room for 8 of them. What is plugged is saved and restored with the machine."},
    {"unplug", cmd_unplug, " NAME DEVICE [--timeout SECONDS]", "take it away again",
     "Asks the guest to eject a device that was plugged, and waits until it has and the device's\n"
     "files are closed: for 30 seconds, or as many as --timeout says, after which the exit status\n"
     "is 125 and the guest may still do so. Whether it does is its affair; unmount a disk first."},
    {"devices", cmd_devices, " NAME [--json]", "list a machine's disks and networks",
     "Lists the disks and networks of the machine NAME: id, kind, place on its PCI bus, whether "
     "it\n"
     "can be unplugged, and what it was made with."},
    {"completion", cmd_completion, " bash|zsh|fish", "print a completion script for a shell",
     "Prints a script that completes commands, options, their values, files and the names of\n"
     "running machines. For the present shell:\n\n"
     "  bash   source <(trivisor completion bash)\n"
     "  zsh    source <(trivisor completion zsh)\n"
     "  fish   trivisor completion fish | source\n\n"
     "For all: put it where your shell looks for completions, as\n"
     "/usr/share/bash-completion/completions/trivisor, _trivisor in a directory of zsh's\n"
     "$fpath, or /usr/share/fish/vendor_completions.d/trivisor.fish."},
    {"doctor", cmd_doctor, "", "say what works on this host, and what is missing",
     "Says which engines work on this host and how fast, by measurement, and what is missing\n"
     "for the others."},
    {"version", cmd_version, "", "print the version", "Prints the version."},
    {"help", cmd_help, " [command]", "print help", "Prints help about a command, or lists them."},
};

const char *const command_names[] = {"run",     "console", "ps",      "pause",      "resume",
                                     "stop",    "kill",    "stats",   "snapshot",   "restore",
                                     "plug",    "unplug",  "devices", "completion", "doctor",
                                     "version", "help",    NULL};

int failure(const char *fmt, ...)
{
    va_list ap;

    fprintf(stderr, "trivisor: ");
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return EXIT_STATUS_FAILURE;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (!strcmp(commands[i].name, name))
            return &commands[i];
    return NULL;
}

static void print_commands(void)
{
    printf("Usage: trivisor COMMAND [options]\n\n"
           "Runs virtual machines without privileges.\n\nCommands:\n");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        printf("  %-12s%s\n", commands[i].name, commands[i].what);
    printf("\nThe first boot: trivisor run disk.img\n"
           "            or: trivisor run -k vmlinuz -i initrd.img\n"
           "More: trivisor help COMMAND, trivisor doctor, man trivisor\n");
}

void print_run_help(FILE *out)
{
    fprintf(out, "Usage: trivisor run [DISK] [options] [-- COMMAND [ARGUMENT...]]\n\n"
                 "Boots a virtual machine, its serial port on the terminal: the kernel given with "
                 "-k,\nor the one that is installed on the first disk. DISK is one more -d, the "
                 "first.\nCOMMAND runs in the initramfs given with -i, instead of its init; its "
                 "input,\noutput and exit status are passed.\n\n"
                 "Options:\n");
    config_print_help(out);
    fprintf(out, "\nKeys on the terminal:\n"
                 "  C-a x     quit: end the machine\n"
                 "  C-a d     detach: leave it running, trivisor console comes back to it\n"
                 "  C-a h     list the keys\n"
                 "  C-a C-a   send C-a to the guest\n"
                 "\nExit status:\n"
                 "  0         the guest powered off or reset itself, or C-a x\n"
                 "  any       that of the command; 126, 127: it could not be run\n"
                 "  (v<<1)|1  the guest wrote v to the isa-debug-exit port 0xf4\n"
                 "  122       the guest crashed: triple fault\n"
                 "  124       the guest reported a panic through pvpanic\n"
                 "  125       bad options or files, the engine cannot go on, or output was lost\n"
                 "  128+n     ended by signal n; 137 also by trivisor kill\n");
}

static int cmd_help(int argc, char **argv)
{
    const struct command *c;

    if (!argc) {
        print_commands();
        return 0;
    }
    if (argc == 1 && !strcmp(argv[0], "--mdoc")) {
        config_print_mdoc(stdout);
        return 0;
    }
    if (argc > 1)
        return failure("help takes one command");
    c = find_command(argv[0]);
    if (!c)
        return failure("there is no command '%s'; see trivisor help", argv[0]);
    if (c->run == cmd_run)
        print_run_help(stdout);
    else
        printf("Usage: trivisor %s%s\n\n%s\n", c->name, c->arguments, c->help);
    return 0;
}

static int cmd_version(int argc, char **argv)
{
    (void)argv;
    if (argc)
        return failure("version takes no argument");
    printf("trivisor %s\n", program_version);
    return 0;
}

/* What was printed must have arrived: whoever wrote it to a file believes the exit status. */
static int close_output(int status)
{
    errno = 0;
    if (!fflush(stdout) && !ferror(stdout))
        return status;
    failure("standard output: %s", errno ? strerror(errno) : "not all could be written");
    return status ? status : EXIT_STATUS_FAILURE;
}

static int run(int argc, char **argv)
{
    const struct command *c;
    const char *name = argc > 1 ? argv[1] : NULL;

    if (!name)
        return failure("no command; see trivisor help");
    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        name = "help";
    if (!strcmp(name, "--version") || !strcmp(name, "-V"))
        name = "version";
    c = find_command(name);
    if (!c && (name[0] == '-' || strpbrk(name, "./")))
        return failure("there is no command '%s'; did you mean trivisor run %s%s?", name, name,
                       argc > 2 ? " ..." : "");
    if (!c)
        return failure("there is no command '%s'; see trivisor help", name);
    if (argc > 2 && c->run != cmd_help && (!strcmp(argv[2], "--help") || !strcmp(argv[2], "-h")))
        return cmd_help(1, &argv[1]);
    return c->run(argc - 2, argv + 2);
}

int main(int argc, char **argv)
{
    host_fill_standard_fds();
    host_note_inherited_fds();
    return close_output(run(argc, argv));
}
