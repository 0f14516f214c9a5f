/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every instruction form the decoder knows, found by asking it about every combination of encoding,
 * opcode map, mandatory prefix, opcode, W, L, ModRM.mod and ModRM.reg (and rm where it selects an
 * instruction). Two byte patterns are the same form when the decoder gives the same mnemonic and
 * operand signature.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "difftest.h"

struct form *forms;
unsigned nforms;

#define HASH_SIZE 65536u
#define FORMS_MAX 40000u
static u32 *hash_table; /* form number + 1 */

static u32 signature(const struct form *f, const struct x86_insn *in)
{
    u64 h = 0xcbf29ce484222325u;
    u8 key[64];
    unsigned n = 0;

    memset(key, 0, sizeof(key));
    key[n++] = (u8)in->mnemonic;
    key[n++] = (u8)(in->mnemonic >> 8);
    key[n++] = f->enc;
    key[n++] = f->map;
    key[n++] = f->pp;
    key[n++] = f->opcode;
    key[n++] = f->w;
    key[n++] = f->l;
    key[n++] = f->evex_b;
    key[n++] = f->modreg;
    key[n++] = in->has_modrm;
    key[n++] = (u8)(in->mem.size / 8);
    for (unsigned i = 0; i < in->nops; i++) {
        key[n++] = in->op[i].kind;
        key[n++] = (u8)(in->op[i].size / 8);
        key[n++] = (u8)(in->op[i].read | in->op[i].write << 1 | in->op[i].implicit << 2);
    }
    for (unsigned i = 0; i < n; i++)
        h = (h ^ key[i]) * 0x100000001b3u;
    return (u32)(h ^ h >> 32);
}

static void add(struct form *f, const struct x86_insn *in, unsigned reg, u8 rm_mask)
{
    f->mnemonic = in->mnemonic;
    f->category = in->category;
    f->isa_ext = in->isa_ext;
    f->sig = signature(f, in);
    for (u32 h = f->sig % HASH_SIZE;; h = (h + 1) % HASH_SIZE) {
        if (!hash_table[h]) {
            if (nforms == FORMS_MAX)
                return;
            forms[nforms] = *f;
            forms[nforms].reg_mask = (u8)(1u << reg);
            forms[nforms].rm_mask = rm_mask;
            hash_table[h] = ++nforms;
            return;
        }
        struct form *o = &forms[hash_table[h] - 1];
        if (o->sig == f->sig && o->mnemonic == f->mnemonic) {
            o->reg_mask |= (u8)(1u << reg);
            o->rm_mask |= rm_mask;
            return;
        }
    }
}

/* Does modrm.rm choose the instruction when modrm.mod is 3? */
static bool rm_selects(const struct form *f)
{
    if (f->enc != X86_ENC_LEGACY)
        return false;
    return (f->map == 0 && f->opcode >= 0xd8 && f->opcode <= 0xdf) ||
           (f->map == 1 &&
            (f->opcode == 0x01 || f->opcode == 0xae || f->opcode == 0x1e || f->opcode == 0xc7));
}

static bool try_fields(const struct form *f, const struct enc_fields *e, struct x86_insn *in)
{
    u8 buf[32];
    encode(f, e, buf);
    return x86_decode(in, buf, 15, f->mode, false) == X86_DECODE_OK && in->encoding == f->enc &&
           in->opcode == f->opcode && !exclude_reason(in);
}

static void explore(struct form *f)
{
    for (unsigned modreg = 0; modreg < 2; modreg++) {
        f->modreg = (u8)modreg;
        for (unsigned reg = 0; reg < 8; reg++) {
            struct x86_insn in;
            struct enc_fields e = {.reg = (u8)reg, .rm = 1, .index = 4};
            struct form g = *f;

            g.need_mask = 0;
            if (!try_fields(&g, &e, &in)) {
                if (f->enc != X86_ENC_EVEX && f->enc != X86_ENC_VEX && !rm_selects(f))
                    continue;
                /* A VSIB address needs a SIB byte, a gather or scatter also a mask. */
                if (!modreg && f->enc >= X86_ENC_VEX) {
                    e.use_sib = 1;
                    e.index = 1;
                    e.reg = (u8)(reg == 0 ? 2 : reg);
                    e.vvvv = 3;
                    if (!try_fields(&g, &e, &in)) {
                        e.vvvv = 0;
                        e.aaa = 1;
                        g.need_mask = 1;
                        if (!try_fields(&g, &e, &in))
                            continue;
                    }
                } else if (!modreg || !rm_selects(f)) {
                    continue;
                }
            }
            if (modreg && rm_selects(f)) {
                for (unsigned rm = 0; rm < 8; rm++) {
                    e.rm = (u8)rm;
                    if (try_fields(&g, &e, &in)) {
                        g.has_modrm = in.has_modrm;
                        add(&g, &in, reg, (u8)(1u << rm));
                    }
                }
                continue;
            }
            if (!in.has_modrm) {
                if (modreg || reg)
                    return; /* one is enough */
                g.has_modrm = 0;
                add(&g, &in, 0, 0xff);
                return;
            }
            add(&g, &in, reg, 0xff);
        }
    }
}

static bool is_prefix_byte(unsigned op, unsigned mode)
{
    switch (op) {
    case 0x0f:
    case 0x26:
    case 0x2e:
    case 0x36:
    case 0x3e:
    case 0x64:
    case 0x65:
    case 0x66:
    case 0x67:
    case 0xf0:
    case 0xf2:
    case 0xf3:
        return true;
    default:
        return mode == 64 && op >= 0x40 && op <= 0x4f;
    }
}

static struct {
    struct form *f;
    unsigned n;
} tables[2];

static void build(unsigned mode);

void forms_select(unsigned mode)
{
    unsigned t = mode == 32;
    if (!tables[t].f) {
        forms = NULL;
        build(mode);
        tables[t].f = forms;
        tables[t].n = nforms;
    }
    forms = tables[t].f;
    nforms = tables[t].n;
}

static void build(unsigned mode)
{
    struct form f;
    nforms = 0;
    forms = calloc(FORMS_MAX, sizeof(*forms));
    hash_table = calloc(HASH_SIZE, sizeof(*hash_table));
    if (!forms || !hash_table) {
        fprintf(stderr, "difftest: out of memory\n");
        exit(2);
    }
    for (unsigned op = 0; op < 256; op++) {
        for (unsigned pp = 0; pp < 4; pp++) {
            for (unsigned w = 0; w < (mode == 64 ? 2u : 1u); w++) {
                for (unsigned map = 0; map < 4; map++) {
                    if (map == 0 && is_prefix_byte(op, mode))
                        continue;
                    if (map == 1 && (op == 0x38 || op == 0x3a || op == 0x0f))
                        continue;
                    f = (struct form){.mode = (u8)mode,
                                      .enc = X86_ENC_LEGACY,
                                      .map = (u8)map,
                                      .pp = (u8)pp,
                                      .opcode = (u8)op,
                                      .w = (u8)w,
                                      .has_modrm = 1};
                    explore(&f);
                }
            }
            for (unsigned w = 0; w < 2; w++) {
                for (unsigned map = 1; map < 4; map++) {
                    f = (struct form){.mode = (u8)mode,
                                      .enc = X86_ENC_VEX,
                                      .map = (u8)map,
                                      .pp = (u8)pp,
                                      .opcode = (u8)op,
                                      .w = (u8)w,
                                      .has_modrm = 1};
                    for (f.l = 0; f.l < 2; f.l++)
                        explore(&f);
                    f.enc = X86_ENC_EVEX;
                    for (f.evex_b = 0; f.evex_b < 2; f.evex_b++)
                        for (f.l = 0; f.l < (f.evex_b ? 4 : 3); f.l++)
                            explore(&f);
                }
            }
        }
    }
    free(hash_table);
    hash_table = NULL;
}
