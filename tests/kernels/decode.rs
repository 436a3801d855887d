//! The paged cache: appended, copied, shared and attended to as the CPU's.

use gristmill::backend::{Backend, Cpu, Heads, KV_PAGE as PAGE, Paged};
use gristmill::model::KvPages;

use crate::args;
use crate::shim::{ACTS, Act, Device, available, close};

/// Fills slot 0 with a prompt, lends it to slot 2, decodes on in both.
fn decode(act: Act, heads: Heads, prompt: usize, more: usize) {
    let (cpu, slots, capacity) = (Cpu::new(), 3, 160);
    let mut pages = KvPages::new(slots, capacity, slots * capacity / PAGE);
    let mut cache = cpu.kv_cache(1, heads, pages.pages());
    let mut d = Device::new("kv_cache.cu", act);
    let layer = d.act_out(pages.pages() * 2 * heads.kv * PAGE * heads.dim);
    let append = |d: &mut Device, pages: &KvPages, qkv: &[f32], slots: &[u32], positions: &[u32]| {
        let (table, qkv) = (d.u32(pages.table()), d.act(qkv));
        let (sb, pb) = (d.u32(slots), d.u32(positions));
        let args: &[_] = args![layer, table, qkv, sb, pb, heads.query, heads.kv, heads.dim, PAGE, pages.width()];
        d.launch("kv_append", [slots.len(), 1, 1], 128, 0, args);
    };
    let positions: Vec<u32> = (0..prompt as u32).collect();
    let qkv = act.random(prompt * heads.qkv_width(), 1);
    let zeros = vec![0; prompt];
    positions.iter().for_each(|&p| assert_eq!(pages.write(0, p as usize), None, "no page is shared yet"));
    append(&mut d, &pages, &qkv, &zeros, &positions);
    let table = pages.table().to_vec();
    let at = Paged { table: &table, width: pages.width(), slots: &zeros, positions: &positions, rows: prompt };
    cpu.kv_append(&mut cache, 0, &qkv, &at);
    pages.share(0, 2, prompt);
    for step in 0..more {
        let positions = vec![(prompt + step) as u32; 2];
        let qkv = act.random(2 * heads.qkv_width(), 2 + step as u64);
        for slot in [2, 0] {
            if let Some(copy) = pages.write(slot, prompt + step) {
                let copies = d.u32(&[copy.from, copy.to, copy.len as u32]);
                d.launch("kv_copy", [2 * heads.kv, 1, 1], 128, 0, args![layer, copies, 0u64, heads.dim, PAGE]);
                cpu.kv_copy(&mut cache, &[copy]);
            }
        }
        append(&mut d, &pages, &qkv, &[2, 0], &positions);
        let (table, slots) = (pages.table().to_vec(), vec![2, 0]);
        let at = Paged { table: &table, width: pages.width(), slots: &slots, positions: &positions, rows: 2 };
        cpu.kv_append(&mut cache, 0, &qkv, &at);
        let mut want = vec![0.0; 2 * heads.out_width()];
        cpu.attention_cached(&cache, 0, &qkv, &at, &mut want);
        let mut a = Device::new("attention_cached.cu", act);
        let (lb, tb) = (a.act(&d.read_act(layer)), a.u32(pages.table()));
        let (qb, sb, pb) = (a.act(&qkv), a.u32(&slots), a.u32(&positions));
        let out = a.act_out(want.len());
        let shared = 4 * (8 * heads.dim.next_multiple_of(8) + 4 * 8 * 32 + 4 * 8 * (heads.dim + 2));
        let args: &[_] = args![lb, tb, qb, sb, pb, heads.query, heads.kv, heads.dim, PAGE, pages.width(), out];
        let each = [2, 4, 8].into_iter().find(|each| each * 32 >= heads.dim).unwrap();
        a.launch(&format!("attention_cached_{each}"), [2, heads.kv, heads.group().div_ceil(8)], 128, shared, args);
        close("out", &a.read_act(out), &want, if act == Act::F32 { 5e-6 } else { 8e-3 });
    }
}

#[test]
fn two_completions_share_a_prompt_and_part_where_they_write() {
    if !available() {
        return;
    }
    for act in ACTS {
        decode(act, Heads { query: 4, kv: 2, dim: 40 }, 37, 2);
        decode(act, Heads { query: 18, kv: 2, dim: 64 }, 144, 1);
        decode(act, Heads { query: 3, kv: 1, dim: 104 }, 33, 1);
        decode(act, Heads { query: 7, kv: 1, dim: 128 }, 70, 1);
        decode(act, Heads { query: 2, kv: 1, dim: 256 }, 16, 1);
        decode(act, Heads { query: 1, kv: 1, dim: 8 }, 1, 1);
        // Heads that are no multiple of 8 (r1_mini's student has 12), groups of 1, 3, 7 and more than a block takes.
        decode(act, Heads { query: 4, kv: 2, dim: 12 }, 37, 2);
        decode(act, Heads { query: 2, kv: 2, dim: 6 }, 17, 1);
        decode(act, Heads { query: 9, kv: 3, dim: 70 }, 40, 1);
        decode(act, Heads { query: 7, kv: 1, dim: 130 }, 5, 1);
        decode(act, Heads { query: 10, kv: 1, dim: 2 }, 33, 1);
    }
}
