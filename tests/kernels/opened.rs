//! One handle for each GPU of a process, tried before anyone gets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gristmill::Error;
use gristmill::backend::cuda::opened::Handles;
use gristmill::backend::{Backend, Cuda, Heads};

use crate::host::{Fault, Host, cuda};
use crate::shim::on_host;

#[test]
fn whoever_opens_a_gpu_gets_the_one_handle() {
    if !on_host() {
        return;
    }
    let (handles, opened) = (Handles::<Host>::new(), AtomicUsize::new(0));
    let open = || {
        opened.fetch_add(1, Ordering::Relaxed);
        Ok(Host::default())
    };
    let (first, _) = handles.get(0, open).unwrap();
    std::thread::scope(|scope| {
        let (handles, open) = (&handles, &open);
        let threads: Vec<_> = (0..4).map(|i| scope.spawn(move || handles.get(i % 2, open).unwrap().0)).collect();
        let found: Vec<Arc<Host>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(Arc::ptr_eq(&found[0], &first) && Arc::ptr_eq(&found[2], &first));
        assert!(Arc::ptr_eq(&found[1], &found[3]) && !Arc::ptr_eq(&found[1], &first));
    });
    assert_eq!(opened.load(Ordering::Relaxed), 2, "one for each ordinal");
}

/// Fails as an operation on a real GPU would: for good.
fn break_it(gpu: &Cuda) {
    let heads = Heads { query: 1, kv: 1, dim: 300 };
    gpu.attention(&gpu.act(900), &[0, 1], heads, &mut gpu.act(300), &mut gpu.f32(1));
    assert!(gpu.finish().is_err());
}

#[test]
fn a_handle_that_has_failed_is_not_given_to_the_next() {
    if !on_host() {
        return;
    }
    let handles = Handles::new();
    let (device, gpu) = handles.get(0, || Ok(Host::default())).unwrap();
    break_it(&gpu);
    let (fresh, next) = handles.get(0, || Ok(Host::default())).unwrap();
    assert!(!Arc::ptr_eq(&device, &fresh));
    next.probe().unwrap();
    assert!(gpu.finish().is_err(), "who holds the old one knows that it failed");
}

#[test]
fn memory_that_operations_took_is_given_back_when_nobody_uses_the_device() {
    if !on_host() {
        return;
    }
    let handles = Handles::new();
    let (device, gpu) = handles.get(0, || Ok(Host::default())).unwrap();
    let x = gpu.f32(1 << 16);
    gpu.square_sum(&x);
    drop(x);
    assert!(device.allocated() > 0);
    let (_, beside) = handles.get(0, || unreachable!("it is open")).unwrap();
    assert!(device.allocated() > 0, "somebody works on it");
    drop((gpu, beside));
    handles.get(0, || unreachable!("it is open")).unwrap();
    assert_eq!(device.allocated(), 0);
}

#[test]
fn a_gpu_that_does_not_work_is_not_opened() {
    if !on_host() {
        return;
    }
    for (fault, words) in [
        (Fault::Memory(1), "bytes more"),
        (Fault::Dead("publish", 1, "no kernel image is available for execution on the device"), "no kernel image"),
        (Fault::Nan("publish", 1), "multiplies wrongly"),
    ] {
        let handles = Handles::new();
        let broken = || {
            let host = Host::default();
            host.fail(fault);
            Ok(host)
        };
        let error = handles.get(1, broken).err().unwrap().to_string();
        assert!(error.contains("GPU 1 cannot be used: ") && error.contains(words), "{error}");
        let error = handles.get(1, || Err(Error::new("there is no GPU 1"))).err().unwrap();
        assert_eq!(error.to_string(), "there is no GPU 1", "it was not kept");
        handles.get(1, || Ok(Host::default())).unwrap();
    }
}

#[test]
fn the_first_work_on_a_device_is_right() {
    let Some(gpu) = cuda() else { return };
    gpu.probe().unwrap();
}

#[test]
fn what_one_holder_records_has_nothing_of_anothers() {
    if !on_host() {
        return;
    }
    let handles = Handles::new();
    let of = || handles.get(0, || Ok(Host::default())).unwrap().1;
    let (recorder, other) = (of(), of());
    let (mut mine, theirs) = (recorder.f32(4), Arc::new(std::sync::Mutex::new(other.f32(4))));
    let mut recordings = Default::default();
    for round in 0..3 {
        other.put_f32(&mut theirs.lock().unwrap(), 0, &[1.0; 4]);
        let mut thread = None;
        recorder.replay(&mut recordings, 1, &mut || {
            // In the second round, while it is recorded: allocations, copies and launches of somebody else.
            if round == 1 {
                let (gpu, theirs) = (other.clone(), theirs.clone());
                thread = Some(std::thread::spawn(move || {
                    drop(gpu.f32(1 << 12));
                    gpu.zero_f32(&mut theirs.lock().unwrap());
                }));
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            recorder.zero_f32(&mut mine);
        });
        thread.into_iter().for_each(|thread| thread.join().unwrap());
        let want = if round == 1 { 0.0 } else { 1.0 };
        assert_eq!(other.get_f32(&theirs.lock().unwrap(), 0..4), [want; 4], "round {round}");
    }
    assert_eq!(recordings.state(), (1, None));
    recorder.finish().unwrap();
}
