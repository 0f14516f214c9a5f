/* SPDX-License-Identifier: Apache-2.0 */
/* Running a command in the guest: what is added to the initramfs and to the kernel's command line,
 * and the serial port the agent speaks over. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "agent/agent.h"
#include "backend/char/command.h"
#include "backend/char/console.h"
#include "base/log.h"
#include "board/cpio.h"
#include "board/pc_priv.h"
#include "dev/chipset/irqchip.h"
#include "dev/chipset/uart.h"
#include "proto/agent.h"

/* Kernel messages go to the first serial port, which nobody sees unless the command fails to run.
 */
#define APPEND_DEFAULT "console=ttyS0 quiet panic=-1"

/* The last words of a guest that ended before its command did. */
#define LAST_WORDS 6000

int pc_command_boot(struct pc *pc, struct boot *b)
{
    const struct config *cfg = pc->cfg;
    struct cpio *c = &pc->extra_initrd;
    const char *append = cfg->append ? cfg->append : APPEND_DEFAULT;
    size_t size = 0, at = 0;
    char *argv;

    if (!cfg->command)
        return 0;
    for (int i = 0; i < cfg->n_command; i++)
        size += strlen(cfg->command[i]) + 1;
    argv = malloc(size);
    pc->cmdline = malloc(strlen(append) + sizeof(" rdinit=" AGENT_PROGRAM));
    if (!argv || !pc->cmdline) {
        free(argv);
        snprintf(pc->err, pc->err_size, "out of memory");
        return -ENOMEM;
    }
    sprintf(pc->cmdline, "%s rdinit=" AGENT_PROGRAM, append);
    for (int i = 0; i < cfg->n_command; i++) {
        size_t n = strlen(cfg->command[i]) + 1;

        memcpy(argv + at, cfg->command[i], n);
        at += n;
    }
    cpio_add(c, "trivisor", S_IFDIR | 0755, NULL, 0);
    cpio_add(c, &AGENT_PROGRAM[1], S_IFREG | 0755, agent_program,
             (u64)(agent_program_end - agent_program));
    cpio_add(c, &AGENT_COMMAND[1], S_IFREG | 0644, argv, size);
    if (pc->ends.terminal_fd >= 0) {
        const char *term = getenv("TERM");

        cpio_add(c, &AGENT_TERMINAL[1], S_IFREG | 0644, term, term ? strlen(term) : 0);
    }
    free(argv);
    if (cpio_finish(c)) {
        snprintf(pc->err, pc->err_size, "out of memory");
        return -ENOMEM;
    }
    b->cmdline = pc->cmdline;
    b->extra_initrd = c->data;
    b->extra_initrd_size = c->size;
    return 0;
}

int pc_command_create(struct pc *pc, struct device *irq)
{
    struct uart_config com2 = {.base = UART_COM2, .irq = irqchip_isa_line(irq, UART_COM2_IRQ)};
    struct console_config console = {
        .serial = "stdio", .log_size = 1 << 20, .listen_fd = -1, .terminal_fd = -1};
    struct chardev *terminal = NULL;

    if (!pc->cfg->command)
        return 0;
    if (pc->ends.terminal_fd >= 0) {
        console.terminal_fd = pc->ends.terminal_fd;
        terminal = console_open(&pc->vm, &console, pc->err, pc->err_size);
        if (!terminal)
            return -EINVAL;
        console_ready(terminal);
    }
    pc->command = command_open(&pc->vm, terminal, pc->err, pc->err_size);
    if (!pc->command) {
        if (terminal)
            terminal->close(terminal);
        return -EINVAL;
    }
    com2.chr = pc->command;
    if (uart_create(&pc->vm, &com2))
        return 0;
    snprintf(pc->err, pc->err_size, "cannot create the second serial port");
    return -ENOMEM;
}

int pc_command_status(struct pc *pc, int status)
{
    int code;

    if (!pc->command || pc->vm.stop_reason == VM_QUIT)
        return status;
    if (command_ended(pc->command, &code))
        return status == PC_EXIT_OK && command_output_lost(pc->command) ? PC_EXIT_FAILURE : status;
    pc->command_missed = true;
    pc->last_words = calloc(1, LAST_WORDS + 1);
    if (pc->last_words)
        console_last_words(pc->console, pc->last_words, LAST_WORDS);
    return status == PC_EXIT_OK ? PC_EXIT_FAILURE : status;
}

void pc_command_report(const struct pc *pc)
{
    if (!pc->command_missed)
        return;
    log_error("the guest ended before its command did");
    if (pc->last_words && pc->last_words[0])
        fprintf(stderr, "the end of its console:\n%s", pc->last_words);
}
