/* SPDX-License-Identifier: Apache-2.0 */
#include "base/check.h"
#include "base/log.h"

static log_sink_fn *log_sink;
static void (*check_handler)(const char *file, int line, const char *expr);

void log_set_sink(log_sink_fn *sink)
{
    log_sink = sink;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
    va_list ap;

    if (!log_sink)
        return;
    va_start(ap, fmt);
    log_sink(level, fmt, ap);
    va_end(ap);
}

void check_set_handler(void (*handler)(const char *file, int line, const char *expr))
{
    check_handler = handler;
}

_Noreturn void check_failed(const char *file, int line, const char *expr)
{
    if (check_handler)
        check_handler(file, line, expr);
    __builtin_trap();
}
