/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log front: layers below the host speak through this; who listens is decided at start-up by
 * the program (log_set_sink). Without a sink messages are dropped.
 */
#ifndef TRIVISOR_BASE_LOG_H
#define TRIVISOR_BASE_LOG_H

#include <stdarg.h>

#include "base/types.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Called with one message without a trailing newline; may be called from any thread. */
typedef void log_sink_fn(enum log_level level, const char *fmt, va_list ap);

void log_set_sink(log_sink_fn *sink);
void log_msg(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_msg(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_msg(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_DEBUG, __VA_ARGS__)

#endif
