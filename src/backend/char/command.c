/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "backend/char/command.h"
#include "backend/char/output.h"
#include "core/host.h"
#include "core/vm.h"
#include "proto/agent.h"

/* A window's size, a broken pipe or the end of input fit beside a full frame of input. */
#define TO_GUEST_SIZE (2 * AGENT_FRAME_MAX)

enum { GREETING, HEADER, PAYLOAD };

struct command {
    struct chardev c; /* first: towards the serial port */
    struct vm *vm;
    struct chardev *terminal; /* NULL: standard input, output and error */
    struct output out, err;
    bool told_broken[2]; /* the guest knows that out, err have no reader */

    /* From the guest. */
    int state;
    size_t at; /* bytes of the greeting or of the header seen */
    u8 header[AGENT_HEADER_LEN];
    size_t left; /* of the payload */
    u8 small[4]; /* the payload of a frame that is no output */
    size_t n_small;
    bool ended;
    int status;

    /* To the guest. */
    bool reading;     /* something is watched for there */
    bool watching;    /* standard input is in the loop */
    bool input_ended; /* and AGENT_INPUT_END waits to be sent */
    bool size_changed;
    struct host_bh input_bh;
    u32 credit;
    size_t pos, n;
    u8 to_guest[TO_GUEST_SIZE];
};

/* --- to the guest -------------------------------------------------------------------------------
 */

static size_t room(const struct command *m)
{
    return TO_GUEST_SIZE - m->n;
}

/* Puts a frame behind what waits; there is room for it. */
static void add_frame(struct command *m, u8 type, const void *payload, size_t n)
{
    u8 *to = m->to_guest + m->n;

    to[0] = type;
    to[1] = (u8)n;
    to[2] = (u8)(n >> 8);
    memcpy(to + AGENT_HEADER_LEN, payload, n);
    m->n += AGENT_HEADER_LEN + n;
}

static void add_broken(struct command *m, bool dead, u8 which)
{
    if (!dead || m->told_broken[which - 1] || room(m) < AGENT_HEADER_LEN + 1)
        return;
    m->told_broken[which - 1] = true;
    add_frame(m, AGENT_BROKEN, &which, 1);
}

/* What is to be said besides input. */
static void add_news(struct command *m)
{
    u8 size[4] = {(u8)m->c.cols, (u8)(m->c.cols >> 8), (u8)m->c.rows, (u8)(m->c.rows >> 8)};

    if (!m->terminal) {
        add_broken(m, m->out.dead, 1);
        add_broken(m, m->err.dead, 2);
    }
    if (m->size_changed && room(m) >= AGENT_HEADER_LEN + sizeof(size)) {
        m->size_changed = false;
        add_frame(m, AGENT_SIZE, size, sizeof(size));
    }
    if (m->input_ended && room(m) >= AGENT_HEADER_LEN) {
        m->input_ended = false;
        add_frame(m, AGENT_INPUT_END, NULL, 0);
    }
}

/* How much input can be taken from whoever types. */
static size_t input_room(const struct command *m)
{
    size_t n = m->n ? 0 : AGENT_FRAME_MAX;

    return m->credit < n ? m->credit : n;
}

static void add_input(struct command *m, const u8 *buf, size_t n)
{
    m->credit -= (u32)n;
    add_frame(m, AGENT_INPUT, buf, n);
}

static void watch(struct command *m)
{
    bool on = m->state != GREETING && input_room(m);

    if (m->watching && on != m->reading)
        host_loop_mod_fd(STDIN_FILENO, on ? EPOLLIN : 0);
    m->reading = on;
}

/* Offers what waits to the port, and asks for more when all is gone. */
static void deliver(struct command *m)
{
    if (m->state == GREETING)
        return; /* nobody is there yet */
    for (;;) {
        size_t taken;

        if (m->pos == m->n) {
            m->pos = m->n = 0;
            add_news(m);
        }
        if (m->pos == m->n || !m->c.on_input)
            break;
        taken = m->c.on_input(m->c.dev, m->to_guest + m->pos, m->n - m->pos);
        if (!taken)
            return;
        m->pos += taken;
    }
    watch(m);
    if (m->terminal && m->terminal->kick_input)
        m->terminal->kick_input(m->terminal);
}

/* Event loop, when not in the middle of an access of the guest's. */
static void on_input_bh(void *opaque)
{
    struct command *m = opaque;

    vm_lock(m->vm);
    deliver(m);
    vm_unlock(m->vm);
}

static void command_kick_input(struct chardev *chr)
{
    struct command *m = container_of(chr, struct command, c);

    /* The port calls when its access is over but for the return: see port_read. */
    deliver(m);
}

/* Event loop: standard input. */
static void on_readable(void *opaque, u32 events)
{
    struct command *m = opaque;
    u8 buf[AGENT_FRAME_MAX];
    size_t max;
    ssize_t n;

    (void)events;
    vm_lock(m->vm);
    max = m->state == GREETING ? 0 : input_room(m);
    n = max ? read(STDIN_FILENO, buf, max) : -1;
    if (n > 0) {
        add_input(m, buf, (size_t)n);
        deliver(m);
    } else if (max && (n == 0 || (errno != EAGAIN && errno != EINTR))) {
        host_loop_del_fd(STDIN_FILENO);
        m->watching = false;
        m->input_ended = true;
        deliver(m);
    }
    watch(m);
    vm_unlock(m->vm);
}

/* The terminal's console: something was typed. */
static size_t on_typed(void *dev, const u8 *buf, size_t n)
{
    struct command *m = dev;
    size_t max = m->state == GREETING ? 0 : input_room(m);

    if (n > max)
        n = max;
    if (n) {
        add_input(m, buf, n);
        host_bh_schedule(&m->input_bh);
    }
    return n;
}

static void on_resize(void *dev, u16 cols, u16 rows)
{
    struct command *m = dev;

    m->c.cols = cols;
    m->c.rows = rows;
    m->size_changed = true;
    host_bh_schedule(&m->input_bh);
}

/* --- from the guest -----------------------------------------------------------------------------
 */

static size_t show(struct command *m, u8 type, const u8 *buf, size_t n)
{
    struct output *o = type == AGENT_STDERR ? &m->err : &m->out;
    size_t taken;

    if (m->terminal) {
        m->terminal->write(m->terminal, buf, n);
        return n;
    }
    taken = output_try(o, buf, n);
    if (o->dead && !m->told_broken[type == AGENT_STDERR])
        host_bh_schedule(&m->input_bh);
    return taken;
}

/* The machine ends when its command has, and all output is where it should go. */
static void end_when_written(struct command *m)
{
    if (m->ended && !m->out.len && !m->err.len)
        vm_stop(m->vm, VM_TEST_EXIT, m->status, NULL);
}

/* A frame that is no output is complete. */
static void on_frame(struct command *m)
{
    switch (m->header[0]) {
    case AGENT_CREDIT:
        if (m->n_small == 2)
            m->credit += (u32)(m->small[0] | m->small[1] << 8);
        if (m->credit > AGENT_CREDIT_FIRST)
            m->credit = AGENT_CREDIT_FIRST;
        host_bh_schedule(&m->input_bh);
        break;
    case AGENT_EXIT:
        if (m->n_small != 1)
            break;
        m->ended = true;
        m->status = m->small[0];
        m->out.ending = m->err.ending = true;
        end_when_written(m);
        break;
    default: /* a later version's */
        break;
    }
}

/* Takes bytes of the payload; fewer than n: there is no room. */
static size_t take_payload(struct command *m, const u8 *buf, size_t n)
{
    u8 type = m->header[0];

    if (n > m->left)
        n = m->left;
    if (type == AGENT_STDOUT || type == AGENT_STDERR)
        n = show(m, type, buf, n);
    else
        for (size_t i = 0; i < n && m->n_small < sizeof(m->small); i++)
            m->small[m->n_small++] = buf[i];
    m->left -= n;
    return n;
}

static void take_greeting(struct command *m, u8 c)
{
    static const char greeting[] = AGENT_GREETING;

    /* Its first byte is nowhere else in it. */
    if (c != (u8)greeting[m->at])
        m->at = 0;
    if (c == (u8)greeting[m->at])
        m->at++;
    if (m->at < AGENT_GREETING_LEN)
        return;
    m->at = 0;
    m->state = HEADER;
    host_bh_schedule(&m->input_bh);
}

static void take_header(struct command *m, u8 c)
{
    m->header[m->at++] = c;
    if (m->at < AGENT_HEADER_LEN)
        return;
    m->at = 0;
    m->n_small = 0;
    m->left = (size_t)(m->header[1] | m->header[2] << 8);
    m->state = PAYLOAD;
}

static size_t command_write(struct chardev *chr, const u8 *buf, size_t n)
{
    struct command *m = container_of(chr, struct command, c);
    size_t used = 0;

    while (used < n && !m->ended) {
        size_t taken;

        if (m->state == GREETING) {
            take_greeting(m, buf[used++]);
            continue;
        }
        if (m->state == HEADER) {
            take_header(m, buf[used++]);
        } else {
            taken = take_payload(m, buf + used, n - used);
            if (!taken)
                break;
            used += taken;
        }
        if (m->state == PAYLOAD && !m->left) {
            m->state = HEADER;
            on_frame(m);
        }
    }
    /* Nothing that follows the command's end counts. */
    return m->ended ? n : used;
}

/* Standard output or error has room again, or no reader any more. */
static void on_output_room(void *opaque)
{
    struct command *m = opaque;

    if (m->c.on_writable)
        m->c.on_writable(m->c.dev);
    host_bh_schedule(&m->input_bh);
    end_when_written(m);
}

/* --- life cycle ---------------------------------------------------------------------------------
 */

static void command_close(struct chardev *chr)
{
    struct command *m = container_of(chr, struct command, c);

    if (m->watching)
        host_loop_del_fd(STDIN_FILENO);
    host_bh_cancel(&m->input_bh);
    if (m->terminal) {
        m->terminal->close(m->terminal);
    } else {
        output_finish(&m->out);
        output_finish(&m->err);
    }
    free(m);
}

static int open_stdio(struct command *m)
{
    int r = output_init(&m->out, m->vm, STDOUT_FILENO, &m->c);

    if (r)
        return r;
    r = output_init(&m->err, m->vm, STDERR_FILENO, &m->c);
    if (!r) {
        r = host_loop_add_fd(STDIN_FILENO, 0, on_readable, m);
        m->watching = r == 0;
        /* A closed standard input is one at its end. */
        m->input_ended = r == -EBADF;
        if (r == -EBADF)
            r = 0;
        if (r)
            output_finish(&m->err);
    }
    if (r)
        output_finish(&m->out);
    m->out.on_room = m->err.on_room = on_output_room;
    m->out.opaque = m->err.opaque = m;
    return r;
}

struct chardev *command_open(struct vm *vm, struct chardev *terminal, char *err, size_t err_size)
{
    struct command *m = calloc(1, sizeof(*m));
    int r = m ? 0 : -ENOMEM;

    if (m) {
        m->vm = vm;
        m->terminal = terminal;
        m->credit = AGENT_CREDIT_FIRST;
        m->c.write = command_write;
        m->c.holds = true;
        m->c.kick_input = command_kick_input;
        m->c.close = command_close;
        host_bh_init(&m->input_bh, on_input_bh, m);
        if (!terminal)
            r = open_stdio(m);
    }
    if (r) {
        snprintf(err, err_size, "cannot watch standard input and output: %s", strerror(-r));
        free(m);
        return NULL;
    }
    if (terminal) {
        terminal->dev = m;
        terminal->on_input = on_typed;
        terminal->on_resize = on_resize;
    }
    return &m->c;
}

bool command_ended(const struct chardev *c, int *status)
{
    const struct command *m = container_of(c, struct command, c);

    *status = m->status;
    return m->ended;
}

bool command_output_lost(const struct chardev *c)
{
    const struct command *m = container_of(c, struct command, c);

    return m->out.lost || m->err.lost;
}
