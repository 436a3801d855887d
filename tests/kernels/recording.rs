//! Work recorded once and replayed: the same results as issued one by one, on a device that keeps what it is given and
//! does it only when it is replayed, as a GPU does.

use std::sync::Arc;

use gristmill::backend::{Backend, Cuda, Draw, Drawn};
use gristmill::model::{Decoder, Model, Row};

use crate::host::{Host, cuda};
use crate::model::{configs, decode, model};
use crate::shim::on_host;

#[test]
fn recorded_steps_draw_what_single_launches_draw() {
    if !on_host() {
        return;
    }
    for config in configs() {
        let (recording, plain) = (Arc::new(Host::default()), Arc::new(Host::without_recording()));
        let prompt: Vec<u32> = (0..21).map(|i| i * 5 % 110).collect();
        let of = |host: &Arc<Host>| decode(&model(Cuda::on(host.clone()), &config), &prompt, 9);
        assert_eq!(of(&recording), of(&plain));
        // The first step as it is, the second recorded; that and the seven after it replayed.
        assert_eq!((recording.recordings(), plain.recordings()), ((1, 8), (0, 0)));
    }
}

/// Twelve steps of two sequences.
fn twelve(model: &Model<Cuda>, decoder: &mut Decoder<Cuda>) -> Vec<Drawn> {
    let mut all = Vec::new();
    for position in 0..12 {
        let rows = [0, 1].map(|slot| Row { token: 3 + 5 * slot + position, slot, position });
        let draw =
            |slot| Draw { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: slot, index: position.into() };
        let mut drawn = [Drawn::default(); 2];
        model.decode(decoder, &rows, &[draw(0), draw(1)], &mut drawn).unwrap();
        all.extend(drawn);
    }
    all
}

#[test]
fn the_device_records_decoding_steps_and_stays_true_to_them() {
    let Some(gpu) = cuda() else { return };
    let model = model(gpu, &configs()[0]);
    let mut decoder = Decoder::new(model.backend().clone(), &model, 2, 64, 8);
    // The second time every step is a replay; the first time the first was not.
    let first = twelve(&model, &mut decoder);
    assert_eq!(twelve(&model, &mut decoder), first);
    assert_eq!(decoder.recordings().state(), (1, None));
}

#[test]
fn a_step_recorded_at_one_temperature_is_not_replayed_at_another() {
    let Some(gpu) = cuda() else { return };
    let mut model = model(gpu, &configs()[0]);
    let new = |model: &Model<Cuda>| Decoder::new(model.backend().clone(), model, 2, 64, 8);
    let mut decoder = new(&model);
    let cold = twelve(&model, &mut decoder);
    model.set_temperature(0.5).unwrap();
    let warm = twelve(&model, &mut decoder);
    assert_ne!(warm, cold);
    assert_eq!(twelve(&model, &mut new(&model)), warm);
    model.set_temperature(1.0).unwrap();
    assert_eq!(twelve(&model, &mut decoder), cold);
}

#[test]
fn a_recording_dropped_while_another_thread_records_is_forgotten_afterwards() {
    if !on_host() {
        return;
    }
    let host = Arc::new(Host::default());
    let gpu = Cuda::on(host.clone());
    let mut x = gpu.f32(4);
    let mut old = Default::default();
    for _ in 0..2 {
        gpu.replay(&mut old, 1, &mut || gpu.zero_f32(&mut x));
    }
    let (mut old, mut new) = (Some(old), Default::default());
    for round in 0..2 {
        gpu.replay(&mut new, 1, &mut || {
            if round == 1 {
                let old = old.take();
                std::thread::scope(|scope| drop(scope.spawn(move || drop(old)).join()));
            }
            gpu.zero_f32(&mut x);
        });
    }
    gpu.finish().unwrap();
    assert_eq!((new.state(), host.kept()), ((1, None), 1), "one was made, the other is gone");
}

/// Draws of one, then three, then two sequences at a time; the cache is widened on the way.
fn steps(host: &Arc<Host>) -> Vec<Drawn> {
    let model = model(Cuda::on(host.clone()), &configs()[0]);
    let mut decoder = Decoder::new(model.backend().clone(), &model, 3, 16, 8);
    let mut all = Vec::new();
    let mut position = 0;
    for (count, slots) in [(3, 0..1), (4, 0..3), (4, 1..3)] {
        for i in 0..count {
            if i == 2 {
                decoder.widen(16 + 16 * (1 + position as usize));
            }
            let rows: Vec<Row> = slots.clone().map(|slot| Row { token: 7 + slot + position, slot, position }).collect();
            let draw = |_| Draw { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 5, index: position.into() };
            let draws: Vec<Draw> = rows.iter().map(draw).collect();
            let mut drawn = vec![Drawn::default(); rows.len()];
            model.decode(&mut decoder, &rows, &draws, &mut drawn).unwrap();
            all.extend(drawn);
            position += 1;
        }
        if slots == (0..1) {
            // The others begin where the first is.
            decoder.share(0, 1, position as usize);
            decoder.share(0, 2, position as usize);
        }
    }
    all
}

#[test]
fn a_step_whose_buffers_have_moved_is_recorded_again() {
    if !on_host() {
        return;
    }
    let (recording, plain) = (Arc::new(Host::default()), Arc::new(Host::without_recording()));
    assert_eq!(steps(&recording), steps(&plain));
    // One row: widened at its third step. Three (the cache has three slots): recorded, widened, recorded again. Two:
    // the same.
    assert_eq!(recording.recordings().0, 2 + 2 + 2, "{:?}", recording.recordings());
}

#[test]
fn a_buffer_in_the_place_of_another_is_not_taken_for_it() {
    if !on_host() {
        return;
    }
    let host = Arc::new(Host::default());
    let gpu = Cuda::on(host.clone());
    let (rows, width) = (2, 8);
    let x = gpu.put_act(&vec![0.5; rows * 2 * width]);
    let mut recordings = Default::default();
    let mut made = Vec::new();
    for round in 0..2 {
        let mut out = gpu.act(rows * width);
        for _ in 0..3 {
            gpu.zero_act(&mut out, rows * width);
            gpu.replay(&mut recordings, 1, &mut || gpu.swiglu(&x, width, rows, &mut out));
            assert!(gpu.get_act(&out, rows * width).iter().all(|y| (0.15..0.16).contains(y)), "round {round}");
        }
        made.push(host.recordings());
    }
    // In the second round the old buffer is gone: recorded anew, whatever the address of the new one.
    assert_eq!(made, [(1, 2), (2, 5)]);
    assert_eq!(recordings.state(), (1, None));
    drop(recordings);
    gpu.finish().unwrap();
}

#[test]
fn what_cannot_be_recorded_is_issued_as_it_is() {
    if !on_host() {
        return;
    }
    let gpu = Cuda::on(Arc::new(Host::default()));
    let mut x = gpu.f32(3);
    gpu.put_f32(&mut x, 0, &[1.0, 2.0, 3.0]);
    let (mut recordings, mut sums) = (Default::default(), Vec::new());
    for _ in 0..3 {
        // Reads its result, which a recording cannot.
        gpu.replay(&mut recordings, 1, &mut || sums.push(gpu.square_sum(&x)));
        gpu.finish().unwrap();
    }
    assert_eq!(sums.iter().filter(|&&sum| sum == 14.0).count(), 3, "{sums:?}");
    let (kept, refused) = recordings.state();
    assert!(kept == 0 && refused.unwrap().contains("cannot be recorded"), "{refused:?}");
}

#[test]
fn another_threads_work_waits_for_the_recording_to_end() {
    if !on_host() {
        return;
    }
    let gpu = Cuda::on(Arc::new(Host::default()));
    let (mut recordings, mut mine) = (Default::default(), gpu.f32(4));
    let other = Arc::new(std::sync::Mutex::new(gpu.f32(4)));
    let mut threads = Vec::new();
    for round in 0..3 {
        gpu.put_f32(&mut other.lock().unwrap(), 0, &[1.0; 4]);
        gpu.replay(&mut recordings, 1, &mut || {
            // In the second round: while this thread records.
            if round == 1 {
                let (gpu, other) = (gpu.clone(), other.clone());
                threads.push(std::thread::spawn(move || gpu.zero_f32(&mut other.lock().unwrap())));
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            gpu.zero_f32(&mut mine);
        });
        threads.drain(..).for_each(|thread| thread.join().unwrap());
        // Done once by the thread itself, and no part of what is replayed.
        let want = if round == 1 { 0.0 } else { 1.0 };
        assert_eq!(gpu.get_f32(&other.lock().unwrap(), 0..4), [want; 4], "round {round}");
    }
    assert_eq!(recordings.state(), (1, None));
    gpu.finish().unwrap();
}
