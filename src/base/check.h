/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CHECK: for our own bugs only. A guest must never be able to reach a failing CHECK; a guest's
 * mistake is an architectural exception or a stopped guest, a host's failure is a returned negative
 * errno.
 */
#ifndef TRIVISOR_BASE_CHECK_H
#define TRIVISOR_BASE_CHECK_H

/* Reports through the log and ends the process; the handler is installed by the host layer. */
_Noreturn void check_failed(const char *file, int line, const char *expr);
void check_set_handler(void (*handler)(const char *file, int line, const char *expr));

#define CHECK(expr)                                                                                \
    do {                                                                                           \
        if (__builtin_expect(!(expr), 0))                                                          \
            check_failed(__FILE__, __LINE__, #expr);                                               \
    } while (0)

#endif
