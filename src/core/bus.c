/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "base/bits.h"
#include "base/log.h"
#include "core/bus.h"

void bus_init(struct bus *b, const char *name)
{
    b->n = 0;
    b->name = name;
    b->strict = false;
}

/* Number of regions whose base is at or below addr. */
static unsigned upper(const struct bus *b, u64 addr)
{
    unsigned lo = 0, hi = b->n;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (b->region[mid].base <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Callers copy what they found: a device may add and remove regions while it is called. */
static const struct bus_region *find(const struct bus *b, u64 addr)
{
    unsigned i = upper(b, addr);
    if (!i || addr - b->region[i - 1].base >= b->region[i - 1].size)
        return NULL;
    return &b->region[i - 1];
}

int bus_add(struct bus *b, u64 base, u64 size, const struct bus_ops *ops, void *dev,
            const char *name)
{
    u64 last;
    unsigned at;

    if (!size || !add_ok(base, size - 1, &last))
        return -EINVAL;
    if (b->n == BUS_REGIONS_MAX)
        return -ENOSPC;
    at = upper(b, base);
    if (at && base - b->region[at - 1].base < b->region[at - 1].size)
        return -EEXIST;
    if (at < b->n && b->region[at].base <= last)
        return -EEXIST;
    for (unsigned i = b->n; i > at; i--)
        b->region[i] = b->region[i - 1];
    b->region[at] =
        (struct bus_region){.base = base, .size = size, .ops = ops, .dev = dev, .name = name};
    b->n++;
    return 0;
}

int bus_remove(struct bus *b, u64 base)
{
    unsigned at = upper(b, base);

    if (!at || b->region[at - 1].base != base)
        return -ENOENT;
    for (unsigned i = at; i < b->n; i++)
        b->region[i - 1] = b->region[i];
    b->n--;
    return 0;
}

static unsigned min_size(const struct bus_ops *ops)
{
    return ops->min_size ? ops->min_size : 1;
}

static unsigned max_size(const struct bus_ops *ops)
{
    return ops->max_size ? ops->max_size : 8;
}

/* Whole access inside r, sizes adapted to what the device takes. */
static u64 region_read(const struct bus_region *r, u64 off, unsigned size)
{
    unsigned min = min_size(r->ops), max = max_size(r->ops);
    u64 val = 0;

    if (size < min) {
        u64 start = align_down(off, min);
        if (off + size > start + min || start + min > r->size)
            return size_mask(size);
        return r->ops->read(r->dev, start, min) >> (8 * (off - start)) & size_mask(size);
    }
    if (size <= max)
        return r->ops->read(r->dev, off, size) & size_mask(size);
    for (unsigned i = 0; i < size; i += max)
        val |= (r->ops->read(r->dev, off + i, max) & size_mask(max)) << (8 * i);
    return val;
}

static void region_write(const struct bus_region *r, u64 off, unsigned size, u64 val)
{
    unsigned min = min_size(r->ops), max = max_size(r->ops);

    if (size < min) {
        /* A narrow store into a wide register: the other bytes keep what they read as. */
        u64 start = align_down(off, min), old, mask;
        unsigned shift = (unsigned)(8 * (off - start));
        if (off + size > start + min || start + min > r->size)
            return;
        mask = size_mask(size) << shift;
        old = r->ops->read(r->dev, start, min);
        r->ops->write(r->dev, start, min, (old & ~mask) | ((val << shift) & mask));
        return;
    }
    if (size <= max) {
        r->ops->write(r->dev, off, size, val & size_mask(size));
        return;
    }
    for (unsigned i = 0; i < size; i += max)
        r->ops->write(r->dev, off + i, max, val >> (8 * i) & size_mask(max));
}

u64 bus_read(struct bus *b, u64 addr, unsigned size)
{
    const struct bus_region *r = find(b, addr);
    u64 val = 0;

    if (r && size <= r->size - (addr - r->base)) {
        struct bus_region copy = *r;
        return region_read(&copy, addr - copy.base, size);
    }
    if (!r && (size == 1 || !find(b, addr + size - 1))) {
        if (b->strict)
            log_warn("%s: read of %u bytes at %#llx: nobody there", b->name, size,
                     (unsigned long long)addr);
        return size_mask(size);
    }
    for (unsigned i = 0; i < size; i++)
        val |= bus_read(b, addr + i, 1) << (8 * i);
    return val;
}

void bus_write(struct bus *b, u64 addr, unsigned size, u64 val)
{
    const struct bus_region *r = find(b, addr);

    if (r && size <= r->size - (addr - r->base)) {
        struct bus_region copy = *r;
        region_write(&copy, addr - copy.base, size, val);
        return;
    }
    if (!r && (size == 1 || !find(b, addr + size - 1))) {
        if (b->strict)
            log_warn("%s: write of %#llx (%u bytes) at %#llx: nobody there", b->name,
                     (unsigned long long)val, size, (unsigned long long)addr);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        bus_write(b, addr + i, 1, val >> (8 * i) & 0xff);
}
