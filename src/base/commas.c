/* SPDX-License-Identifier: Apache-2.0 */
#include "base/commas.h"

int commas_next(const char **text, char *buf, size_t size)
{
    const char *s = *text;
    size_t n = 0;

    if (!s)
        return COMMAS_END;
    while (*s && (*s != ',' || s[1] == ',')) {
        if (n + 1 >= size)
            return COMMAS_TOO_LONG;
        buf[n++] = *s;
        s += *s == ',' ? 2 : 1;
    }
    buf[n] = 0;
    *text = *s ? s + 1 : NULL;
    return (int)n;
}

char *commas_value(char *item)
{
    for (; *item; item++)
        if (*item == '=') {
            *item = 0;
            return item + 1;
        }
    return NULL;
}
