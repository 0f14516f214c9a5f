/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "core/cpu_state.h"
#include "x86/cpu_check.h"

#define MODEL_VERSION 1
#define STATE_VERSION 1

/* The XSAVE image (SDM 1 13.4): what is left of the legacy region is reserved. */
#define LEGACY_SIZE 416
#define XSAVE_BV 512

#define FIRST_COMPONENT 2
#define COMPONENTS 32

/* --- models --- */

void x86_cpu_model_save(const struct x86_cpu_model *m, struct stream *out)
{
    stream_put_u16(out, MODEL_VERSION);
    stream_put_u32(out, m->tsc_khz);
    stream_put_u64(out, m->arch_caps);
    stream_put_u16(out, (u16)m->n);
    for (unsigned i = 0; i < m->n; i++) {
        const struct x86_cpuid_entry *e = &m->entry[i];

        stream_put_u32(out, e->leaf);
        stream_put_u32(out, e->subleaf);
        stream_put_u8(out, e->has_subleaf);
        stream_put_u32(out, e->eax);
        stream_put_u32(out, e->ebx);
        stream_put_u32(out, e->ecx);
        stream_put_u32(out, e->edx);
    }
}

int x86_cpu_model_load(struct x86_cpu_model *m, struct stream *in)
{
    u16 version = stream_get_u16(in);
    u8 flags = 0;
    unsigned n;

    memset(m, 0, sizeof(*m));
    m->tsc_khz = stream_get_u32(in);
    m->arch_caps = stream_get_u64(in);
    n = stream_get_u16(in);
    if (in->error || version != MODEL_VERSION || n > X86_CPUID_MAX || !m->tsc_khz)
        return -EINVAL;
    for (; m->n < n; m->n++) {
        struct x86_cpuid_entry *e = &m->entry[m->n];
        u8 has_subleaf;

        e->leaf = stream_get_u32(in);
        e->subleaf = stream_get_u32(in);
        has_subleaf = stream_get_u8(in);
        flags |= has_subleaf;
        e->has_subleaf = has_subleaf != 0;
        e->eax = stream_get_u32(in);
        e->ebx = stream_get_u32(in);
        e->ecx = stream_get_u32(in);
        e->edx = stream_get_u32(in);
    }
    if (in->error || flags > 1 || !x86_cpu_model_valid(m))
        return -EINVAL;
    x86_cpu_model_derive(m);
    return 0;
}

/* --- states --- */

/*
 * Both directions in one description of the stream: `load` says which. Writing does not change the
 * fields.
 */
struct mover {
    struct stream *stream;
    bool load;
};

static void move64(const struct mover *m, u64 *v)
{
    if (m->load)
        *v = stream_get_u64(m->stream);
    else
        stream_put_u64(m->stream, *v);
}

static void move32(const struct mover *m, u32 *v)
{
    if (m->load)
        *v = stream_get_u32(m->stream);
    else
        stream_put_u32(m->stream, *v);
}

static void move16(const struct mover *m, u16 *v)
{
    if (m->load)
        *v = stream_get_u16(m->stream);
    else
        stream_put_u16(m->stream, *v);
}

static void move8(const struct mover *m, u8 *v)
{
    if (m->load)
        *v = stream_get_u8(m->stream);
    else
        stream_put_u8(m->stream, *v);
}

static void move_bytes(const struct mover *m, u8 *p, size_t n)
{
    if (m->load)
        stream_get(m->stream, p, n);
    else
        stream_put(m->stream, p, n);
}

static void move_all64(const struct mover *m, u64 *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        move64(m, &v[i]);
}

static void move_seg(const struct mover *m, struct x86_seg *g)
{
    move64(m, &g->base);
    move32(m, &g->limit);
    move16(m, &g->sel);
    move16(m, &g->attr);
}

static void move_dtr(const struct mover *m, struct x86_dtr *d)
{
    move64(m, &d->base);
    move32(m, &d->limit);
}

static void move_registers(const struct mover *m, struct x86_vcpu_state *s)
{
    move_all64(m, s->gpr, ARRAY_SIZE(s->gpr));
    move64(m, &s->rip);
    move64(m, &s->rflags);
    for (unsigned i = 0; i < X86_NSEG; i++)
        move_seg(m, &s->seg[i]);
    move_seg(m, &s->ldtr);
    move_seg(m, &s->tr);
    move_dtr(m, &s->gdtr);
    move_dtr(m, &s->idtr);
    move64(m, &s->cr0);
    move64(m, &s->cr2);
    move64(m, &s->cr3);
    move64(m, &s->cr4);
    move64(m, &s->xcr0);
    move64(m, &s->efer);
    move_all64(m, s->pdpte, ARRAY_SIZE(s->pdpte));
    move_all64(m, s->dr, ARRAY_SIZE(s->dr));
    move64(m, &s->dr6);
    move64(m, &s->dr7);
}

static void move_events(const struct mover *m, struct x86_vcpu_state *s)
{
    move8(m, &s->cpl);
    move8(m, &s->activity);
    move8(m, &s->int_shadow);
    move8(m, &s->nmi_blocked);
    move8(m, &s->nmi_pending);
    move8(m, &s->db_pending);
    move8(m, &s->ev_kind);
    move8(m, &s->ev_vector);
    move8(m, &s->ev_has_error);
    move32(m, &s->ev_error);
}

static void move_msrs(const struct mover *m, struct x86_vcpu_state *s)
{
    move64(m, &s->star);
    move64(m, &s->lstar);
    move64(m, &s->cstar);
    move64(m, &s->sfmask);
    move64(m, &s->kernel_gs_base);
    move64(m, &s->tsc_aux);
    move64(m, &s->sysenter_cs);
    move64(m, &s->sysenter_esp);
    move64(m, &s->sysenter_eip);
    move64(m, &s->pat);
    move64(m, &s->misc_enable);
    move64(m, &s->spec_ctrl);
    move64(m, &s->xss);
    move64(m, &s->debugctl);
    move64(m, &s->mtrr_def_type);
    move_all64(m, s->mtrr_fixed, ARRAY_SIZE(s->mtrr_fixed));
    move_all64(m, s->mtrr_base, X86_MTRR_VAR);
    move_all64(m, s->mtrr_mask, X86_MTRR_VAR);
    move64(m, &s->mcg_status);
    move64(m, &s->mcg_ctl);
    move_all64(m, &s->mc_bank[0][0], X86_MC_BANKS * 4);
    move_all64(m, s->misc_msr, X86_MISC_MSRS);
}

static const struct x86_cpuid_entry *component(const struct x86_cpu_model *model, u32 n)
{
    for (unsigned i = 0; i < model->n; i++)
        if (model->entry[i].leaf == 0xd && model->entry[i].subleaf == n)
            return &model->entry[i];
    return NULL;
}

/* The image by components; those the model does not have are empty. */
static void move_vectors(const struct mover *m, struct x86_vcpu_state *s,
                         const struct x86_cpu_model *model)
{
    u64 bv;

    move_bytes(m, s->xsave, LEGACY_SIZE);
    memcpy(&bv, s->xsave + XSAVE_BV, sizeof(bv));
    /* An engine's image may have what the host's CPU has beside them, as PKRU. */
    if (!m->load)
        bv &= model->xcr0_valid | 3;
    move64(m, &bv);
    if (m->load)
        memcpy(s->xsave + XSAVE_BV, &bv, sizeof(bv));
    for (u32 i = FIRST_COMPONENT; i < COMPONENTS; i++) {
        const struct x86_cpuid_entry *e = component(model, i);

        if ((model->xcr0_valid & BIT64(i)) && e && e->ebx + e->eax <= X86_XSAVE_SIZE)
            move_bytes(m, s->xsave + e->ebx, e->eax);
    }
}

void x86_vcpu_state_save(const struct x86_vcpu_state *s, const struct x86_cpu_model *model,
                         u64 host_tsc, struct stream *out)
{
    struct mover m = {.stream = out};
    struct x86_vcpu_state *from = (struct x86_vcpu_state *)(uintptr_t)s;

    stream_put_u16(out, STATE_VERSION);
    move_registers(&m, from);
    move_events(&m, from);
    move_msrs(&m, from);
    stream_put_u64(out, host_tsc + s->tsc_offset);
    stream_put_u64(out, s->tsc_adjust);
    move_vectors(&m, from, model);
}

/* Forms that mean the same to engines are brought to the one that all of them know. */
static void normalize(struct x86_vcpu_state *s)
{
    /* AMD-V has one kind of interrupt shadow, and KVM calls it both. */
    if (s->int_shadow == 3)
        s->int_shadow = 1;
    if (s->ev_kind == X86_EV_NONE)
        s->ev_vector = s->ev_has_error = 0;
    if (!s->ev_has_error)
        s->ev_error = 0;
    /* Bits that no CPU looks at but some keep. */
    s->sfmask = (u32)s->sfmask;
    s->sysenter_cs = (u32)s->sysenter_cs;
    s->tsc_aux = (u32)s->tsc_aux;
}

int x86_vcpu_state_load(struct x86_vcpu_state *s, const struct x86_cpu_model *model, u64 host_tsc,
                        struct stream *in)
{
    struct mover m = {.stream = in, .load = true};

    memset(s, 0, sizeof(*s));
    if (stream_get_u16(in) != STATE_VERSION)
        return -EINVAL;
    move_registers(&m, s);
    move_events(&m, s);
    move_msrs(&m, s);
    s->tsc_offset = stream_get_u64(in) - host_tsc;
    s->tsc_adjust = stream_get_u64(in);
    move_vectors(&m, s, model);
    if (in->error)
        return -EINVAL;
    normalize(s);
    return x86_vcpu_state_valid(s, model) ? 0 : -EINVAL;
}
