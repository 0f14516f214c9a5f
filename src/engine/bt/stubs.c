/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stubs at the start of the code cache: entering and leaving translated code, and calling C
 * helpers from it.
 *
 * A kick signal may arrive anywhere. In the parts that go on to translated code after the last look
 * at env->pending (enter_check..enter_end, slow_ret..slow_end and the like) everything the guest
 * owns is in memory, so the handler sends the thread to exit_saved; elsewhere in the stubs setting
 * `pending` is enough.
 */
#include "engine/bt/bt_priv.h"
#include "engine/bt/emit.h"

#define OFF(field) ((s32)offsetof(struct bt_env, field))
#define GPR_OFF(n) ((s32)(8 * (n)))

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };

/* Guest registers that live in host registers other than rax; guest RSP (r9) apart. */
static const u8 live_regs[] = {RCX, RDX, RBX, RBP, RSI, RDI, R12, R13, R14, R15};

/* Saves guest registers and flags; rsp is the window less `bias`. Leaves rax dead. */
static void save_guest(struct emit *e, s32 bias)
{
    emit_store(e, RSP, GPR_OFF(RAX) + bias, RAX);
    EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    emit8(e, 0x66);
    emit_op_mem(e, false, 0x89, RAX, RSP, OFF(lahf) + bias);
    for (unsigned i = 0; i < ARRAY_SIZE(live_regs); i++)
        emit_store(e, RSP, GPR_OFF(live_regs[i]) + bias, live_regs[i]);
    emit_store(e, RSP, GPR_OFF(RSP) + bias, R9);
}

static void load_guest(struct emit *e, s32 bias)
{
    /* movzx eax, word [rsp + lahf]; add al, 127; sahf */
    EMIT(e, 0x0f, 0xb7, 0x84, 0x24);
    emit32(e, (u32)(OFF(lahf) + bias));
    EMIT(e, 0x04, 0x7f, 0x9e);
    for (unsigned i = 0; i < ARRAY_SIZE(live_regs); i++)
        emit_load(e, live_regs[i], RSP, GPR_OFF(live_regs[i]) + bias);
    emit_load(e, R9, RSP, GPR_OFF(RSP) + bias);
    emit_load(e, RAX, RSP, GPR_OFF(RAX) + bias);
}

static void cmp_pending(struct emit *e, unsigned base, s32 bias)
{
    /* cmp dword [base + pending], 0 */
    if (base >= 8)
        emit8(e, 0x41);
    emit8(e, 0x81);
    emit8(e, 0xb8u | (base & 7));
    if ((base & 7) == 4)
        emit8(e, 0x24);
    emit32(e, (u32)(OFF(pending) + bias));
    emit32(e, 0);
}

static const u8 callee_saved[] = {RBX, RBP, R12, R13, R14, R15};

static u8 *rx(struct bt_vm *bt, const struct emit *e)
{
    return bt->code.rx + (e->p - bt->code.rw);
}

static void jump_to(struct bt_vm *bt, struct emit *e, const u8 *target_rx)
{
    emit_patch32(emit_jmp(e), bt_rw(bt, target_rx));
}

/* The way back to C: rsp is the window. */
static void build_exits(struct bt_vm *bt, struct emit *e)
{
    static const struct {
        size_t stub;
        u32 reason;
        s32 save_r11; /* where r11 goes; -1: nowhere */
    } exits[] = {
        {offsetof(struct bt_vm, exit_link), BT_EXIT_LINK, (s32)offsetof(struct bt_env, exit_arg)},
        {offsetof(struct bt_vm, exit_kick), BT_EXIT_RESUME, -1},
        {offsetof(struct bt_vm, exit_step), BT_EXIT_STEP, -1},
    };
    u8 *save = e->p;

    save_guest(e, 0);
    bt->exit_saved = rx(bt, e);
    emit_load(e, RSP, RSP, OFF(host_rsp));
    EMIT(e, 0x48, 0x83, 0xc4, 0x08); /* add rsp, 8 */
    for (unsigned i = ARRAY_SIZE(callee_saved); i-- > 0;) {
        if (callee_saved[i] >= 8)
            emit8(e, 0x41);
        emit8(e, 0x58u | (callee_saved[i] & 7));
    }
    emit8(e, 0xc3);
    for (unsigned i = 0; i < ARRAY_SIZE(exits); i++) {
        *(u8 **)((u8 *)bt + exits[i].stub) = rx(bt, e);
        if (exits[i].save_r11 >= 0)
            emit_store(e, RSP, exits[i].save_r11, R11);
        emit_store_imm32(e, RSP, OFF(exit_reason), exits[i].reason);
        emit_patch32(emit_jmp(e), save);
    }
}

/* void enter(u64 window, const u8 *code) */
static void build_enter(struct bt_vm *bt, struct emit *e)
{
    u8 *give_up;

    bt->enter = (void (*)(u64, const u8 *))(uintptr_t)rx(bt, e);
    for (unsigned i = 0; i < ARRAY_SIZE(callee_saved); i++) {
        if (callee_saved[i] >= 8)
            emit8(e, 0x41);
        emit8(e, 0x50u | (callee_saved[i] & 7));
    }
    EMIT(e, 0x48, 0x83, 0xec, 0x08); /* sub rsp, 8: 16-byte alignment at helper calls */
    emit_store(e, RDI, OFF(host_rsp), RSP);
    emit_mov(e, RSP, RDI);
    bt->enter_check = rx(bt, e);
    cmp_pending(e, RSP, 0);
    give_up = emit_jcc(e, 5);
    emit_store(e, RSP, -8, RSI);
    load_guest(e, 0);
    EMIT(e, 0xff, 0x64, 0x24, 0xf8); /* jmp [rsp - 8] */
    bt->enter_end = rx(bt, e);
    emit_patch32(give_up, e->p);
    emit_store_imm32(e, RSP, OFF(exit_reason), BT_EXIT_RESUME);
    jump_to(bt, e, bt->exit_saved);
}

enum how { CALL, CALL_ACCESS, CALL_STACK, JUMP_IBL };

/*
 * u64 helper(struct bt_vcpu *, u64 r10, u64 r11, u64 return_address), reached by a call from
 * translated code. It returns 0 to leave (exit_reason set). access: otherwise a host address,
 * handed back in r10 to the caller. Not access: otherwise the executable address to go on at, in
 * whatever window is then current; an access goes on so with BT_EXIT_NEXT, when it was executed.
 * For accesses and stack checks s.rip is found out only when a kick makes the caller give up here.
 */
static void build_call(struct bt_vm *bt, struct emit *e, u64 helper, enum how how, u8 **entry,
                       u8 **ret, u8 **end)
{
    bool access = how == CALL_ACCESS, jumped = how == JUMP_IBL;
    bool midway = access || how == CALL_STACK;
    u8 *leave, *kicked, *gone;

    *entry = rx(bt, e);
    if (jumped) {
        emit_lea(e, RSP, RSP, -8);
        emit_mov(e, R10, R8);
    }
    save_guest(e, 8);
    emit_load(e, RCX, RSP, 0);
    if (midway) {
        emit_store(e, RSP, OFF(exit_arg) + 8, RCX);
        emit_store(e, RSP, OFF(exit_info) + 8, R11);
    }
    if (access)
        emit_store(e, RSP, OFF(stub_r8) + 8, R8);
    emit_mov(e, RBX, RCX);
    emit_load(e, RDI, RSP, OFF(self) + 8);
    emit_mov(e, RSI, R10);
    emit_mov(e, RDX, R11);
    emit_lea(e, R12, RSP, 8);
    emit_load(e, RSP, RSP, OFF(host_rsp) + 8);
    emit_mov_imm(e, RAX, helper);
    EMIT(e, 0xff, 0xd0);       /* call rax */
    EMIT(e, 0x48, 0x85, 0xc0); /* test rax, rax */
    leave = emit_jcc(e, 4);
    *ret = rx(bt, e);
    cmp_pending(e, R12, 0);
    kicked = emit_jcc(e, 5);
    emit_load(e, RSP, R12, OFF(window));
    emit_lea(e, RSP, RSP, -8);
    if (access) {
        emit_store(e, RSP, 0, RBX);
        emit_mov(e, R10, RAX);
        emit_load(e, R8, RSP, OFF(stub_r8) + 8);
    } else {
        emit_store(e, RSP, 0, RAX);
    }
    load_guest(e, 8);
    emit8(e, 0xc3);
    *end = rx(bt, e);
    emit_patch32(kicked, e->p);
    emit_store_imm32(e, R12, OFF(exit_reason), midway ? BT_EXIT_KICK : BT_EXIT_RESUME);
    emit_patch32(leave, e->p);
    if (access) {
        /* cmp dword [r12 + exit_reason], BT_EXIT_NEXT */
        EMIT(e, 0x41, 0x81, 0xbc, 0x24);
        emit32(e, (u32)OFF(exit_reason));
        emit32(e, BT_EXIT_NEXT);
        gone = emit_jcc(e, 5);
        emit_load(e, RAX, R12, OFF(exit_arg));
        emit_load(e, R8, R12, OFF(stub_r8));
        jump_to(bt, e, bt->interp_ret);
        emit_patch32(gone, e->p);
    }
    emit_mov(e, RSP, R12);
    jump_to(bt, e, bt->exit_saved);
}

void bt_stubs_build(struct bt_vm *bt)
{
    struct emit e = {.p = bt->code.rw, .end = bt->code.rw + 8192};

    build_exits(bt, &e);
    build_enter(bt, &e);
    build_call(bt, &e, (u64)(uintptr_t)bt_help_interp, CALL, &bt->call_interp, &bt->interp_ret,
               &bt->interp_end);
    build_call(bt, &e, (u64)(uintptr_t)bt_help_access, CALL_ACCESS, &bt->slow_access, &bt->slow_ret,
               &bt->slow_end);
    build_call(bt, &e, (u64)(uintptr_t)bt_help_stack, CALL_STACK, &bt->call_stack, &bt->stack_ret,
               &bt->stack_end);
    build_call(bt, &e, (u64)(uintptr_t)bt_help_ibl, JUMP_IBL, &bt->exit_ibl, &bt->ibl_ret,
               &bt->ibl_end);
    build_call(bt, &e, (u64)(uintptr_t)bt_help_string, CALL, &bt->call_string, &bt->string_ret,
               &bt->string_end);
    bt->stubs_end = rx(bt, &e);
    bt->space[BT_TRANSLATIONS].code = e.p;
}
