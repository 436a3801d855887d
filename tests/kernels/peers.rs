//! Several devices that hold copies of one model: on the host, each with memory of its own, or on the GPUs of this
//! machine where there are several. With one GPU, NCCL moves memory from it to itself.

use std::sync::Arc;

use gristmill::backend::cuda::Buffer;
use gristmill::backend::cuda::driver::Driver;
use gristmill::backend::cuda::nccl::Nccl;
use gristmill::backend::cuda::peers::{Link, Place, Transfer};
use gristmill::backend::{Backend, Cuda, Replicated};
use gristmill::model::{Batch, Scores, SharedModel};
use gristmill::train::objective::LossOutputs;
use gristmill::train::{Learner, OptimizerConfig, OptimizerKind, Sequence};
use gristmill::{Error, Result};

use crate::gpu;
use crate::host::{Fault, Host};
use crate::model::{configs, model};
use crate::shim::on_host;

/// Copies between hosts, each range in an allocation of the host that it is said to be on.
struct Copies(Vec<Arc<Host>>);

impl Link for Copies {
    unsafe fn copy(&self, transfers: &[Transfer]) -> Result<()> {
        for Transfer { from, to, bytes } in transfers {
            if from.device == to.device {
                return Err(Error::new("a device needs nothing of itself"));
            }
            let mut moved = vec![0; *bytes];
            // SAFETY: each host checks the range.
            unsafe {
                self.0[from.device].read(from.address, &mut moved)?;
                self.0[to.device].write(to.address, &moved)?;
            }
        }
        Ok(())
    }
}

fn hosts(devices: usize) -> (Vec<Arc<Host>>, Cuda) {
    let hosts: Vec<Arc<Host>> = (0..devices).map(|_| Arc::new(Host::default())).collect();
    let drivers = hosts.iter().map(|host| Arc::clone(host) as Arc<dyn Driver>).collect();
    (hosts.clone(), Cuda::group(drivers, Box::new(Copies(hosts))).unwrap())
}

/// A group of so many devices; `None`, said aloud, where there are not as many.
fn group(devices: usize) -> Option<Cuda> {
    match gpu::device() {
        None => on_host().then(|| hosts(devices).1),
        Some(_) => {
            let there = gristmill::backend::cuda::device::Device::count().unwrap();
            if there < devices {
                println!("skipped: {devices} GPUs are wanted, {there} are there");
                return None;
            }
            Some(Cuda::open_all(&(0..devices).collect::<Vec<_>>()).unwrap())
        }
    }
}

fn sequences() -> Vec<Sequence> {
    let sequence = |i: u32| {
        let tokens: Vec<u32> = (0..6 + i % 5).map(|t| (t * 7 + i * 11) % 110).collect();
        Sequence::completion(&tokens[..2], &tokens[2..])
    };
    (0..8).map(sequence).collect()
}

/// Norms of the gradients of some steps, and the weights that every device has afterwards.
fn train(backend: Cuda, kind: OptimizerKind) -> (Vec<f64>, Vec<Vec<f32>>) {
    let model = SharedModel::new(model(backend, &configs()[0]));
    let mut learner = Learner::new(model.clone(), OptimizerConfig { kind, ..Default::default() }).unwrap();
    let sequences = sequences();
    let micros = learner.pack(&sequences.iter().collect::<Vec<_>>(), 1, 16);
    let tokens: usize = sequences.iter().map(Sequence::trained_tokens).sum();
    let loss = |_: usize, scores: &Scores| {
        let logprob_gradient = vec![-1.0 / tokens as f32; scores.logprobs.len()];
        Ok(LossOutputs { loss: 1.0, logprob_gradient, ..LossOutputs::default() })
    };
    let mut step = || {
        learner.accumulate(&micros, loss).unwrap();
        learner.step(2e-3, String::new).unwrap().grad_norm
    };
    let norms = (0..2).map(|_| step()).collect();
    let model = model.read();
    model.backend().finish().unwrap();
    let of = |device: usize| model.parameters().iter().flat_map(|info| model.on(device).get(info)).collect();
    (norms, (0..model.devices()).map(of).collect())
}

#[test]
fn devices_that_share_a_batch_train_as_one_does() {
    let Some(one) = crate::host::cuda() else { return };
    for kind in [OptimizerKind::Adamw, OptimizerKind::Muon] {
        let (norms, alone) = train(one.clone(), kind);
        for devices in [2, 3] {
            let (Some(first), Some(second)) = (group(devices), group(devices)) else { return };
            let (found, copies) = train(first, kind);
            assert_eq!(train(second, kind), (found.clone(), copies.clone()), "the same bits again");
            assert!(copies.iter().all(|copy| *copy == copies[0]), "{devices} devices hold one model");
            for (one, several) in norms.iter().zip(&found) {
                assert!((one - several).abs() < 2e-3 * one, "{devices} devices: {several} for {one}");
            }
            let error: f32 = alone[0].iter().zip(&copies[0]).map(|(a, b)| (a - b).powi(2)).sum();
            let size: f32 = alone[0].iter().map(|a| a * a).sum();
            assert!(error.sqrt() < 0.01 * size.sqrt(), "{} of {}", error.sqrt(), size.sqrt());
        }
    }
}

/// Buffers by owner, length, and device.
type Owned = (usize, usize, Vec<Buffer<f32>>);

fn replicated(all: &mut [Owned]) -> Vec<Replicated<'_, Cuda>> {
    all.iter_mut().map(|(owner, _, copies)| Replicated { copies: copies.iter_mut().collect(), owner: *owner }).collect()
}

#[test]
fn sums_are_taken_in_the_order_of_the_devices_whoever_owns_them() {
    let Some(cuda) = group(3) else { return };
    let backends: Vec<Cuda> = std::iter::once(cuda.clone()).chain(cuda.peers()).collect();
    // More than a piece; and values whose sum depends on the order.
    let (long, short) = ((1 << 20) + 77, 5);
    let value = |device: usize, i: usize| [1e8, -1e8, 1.0][(device + i) % 3] + i as f32 * 0.37;
    let want = |i: usize| (value(0, i) + value(1, i)) + value(2, i);
    let filled = |len: usize| {
        let on = |(device, backend): (usize, &Cuda)| {
            let mut buffer = backend.f32(len);
            backend.put_f32(&mut buffer, 0, &(0..len).map(|i| value(device, i)).collect::<Vec<_>>());
            buffer
        };
        backends.iter().enumerate().map(on).collect::<Vec<_>>()
    };
    let mut all: Vec<Owned> =
        [(0, short), (1, short), (2, short), (1, long), (2, 0)].map(|(owner, len)| (owner, len, filled(len))).into();
    cuda.reduce(&mut replicated(&mut all));
    for (owner, len, copies) in &all {
        let found = backends[*owner].get_f32(&copies[*owner], 0..*len);
        assert!(
            found.iter().enumerate().all(|(i, x)| x.to_bits() == want(i).to_bits()),
            "of owner {owner}, {len} long"
        );
    }
    cuda.broadcast(&mut replicated(&mut all));
    for (_, len, copies) in &all {
        for (backend, copy) in backends.iter().zip(copies) {
            let found = backend.get_f32(copy, 0..*len);
            assert!(found.iter().enumerate().all(|(i, x)| x.to_bits() == want(i).to_bits()));
        }
    }
    cuda.finish().unwrap();
}

#[test]
fn a_pass_waits_for_its_own_device_alone() {
    if gpu::device().is_some() || !on_host() {
        return;
    }
    let (hosts, cuda) = hosts(2);
    let model = model(cuda, &configs()[0]);
    let mut batch = Batch::new();
    batch.push_completion(&[1, 2, 3], &[4, 5]);
    let waits = || [hosts[0].waits(), hosts[1].waits()];
    for device in [0, 1] {
        let copy = model.on(device);
        let (mut work, mut grads, before) = (copy.workspace(), copy.grads(), waits());
        copy.forward(&mut work, &batch).unwrap();
        copy.backward(&mut work, &batch, &[-1.0; 2], None, &mut grads).unwrap();
        let after = waits();
        assert_eq!(after[1 - device], before[1 - device], "device {device}");
        assert!(after[device] > before[device]);
    }
    let before = waits();
    model.backend().finish().unwrap();
    assert_eq!(waits(), before.map(|waits| waits + 1), "who asks for the group waits for all of it");
}

#[test]
fn a_device_of_a_group_that_fails_is_told_and_nothing_is_learned_from_it() {
    if gpu::device().is_some() || !on_host() {
        return;
    }
    let (hosts, cuda) = hosts(2);
    let model = SharedModel::new(model(cuda, &configs()[0]));
    let mut learner = Learner::new(model.clone(), OptimizerConfig::default()).unwrap();
    let sequences = sequences();
    let micros = learner.pack(&sequences.iter().collect::<Vec<_>>(), 1, 16);
    let loss = |_: usize, scores: &Scores| {
        let logprob_gradient = vec![-1.0; scores.logprobs.len()];
        Ok(LossOutputs { loss: 1.0, logprob_gradient, ..LossOutputs::default() })
    };
    learner.accumulate(&micros, loss).unwrap();
    hosts[1].fail(Fault::Dead("adamw", 1, "the second one fell off the bus"));
    let dir = tempfile::tempdir().unwrap();
    let stepped = learner.step(1e-3, String::new).map(drop);
    let said = stepped.and_then(|()| learner.write(dir.path())).unwrap_err();
    let said = format!("{said:?}");
    assert!(said.contains("GPU 1 of the group") && said.contains("fell off the bus"), "{said}");
}

#[test]
fn nccl_moves_memory_on_one_gpu() {
    let Some(device) = gpu::device() else { return };
    let link = match Nccl::connect(vec![Arc::clone(device)]) {
        Ok(link) => link,
        Err(error) => return println!("skipped: {error}"),
    };
    let (from, to) = (device.allocate(4096).unwrap(), device.allocate(4096).unwrap());
    let bytes: Vec<u8> = (0..4096).map(|i| (i * 7) as u8).collect();
    let mut found = vec![0; 4096];
    let place = |address| Place { device: 0, address };
    // SAFETY: both were allocated above.
    unsafe {
        device.write(from, &bytes).unwrap();
        link.copy(&[Transfer { from: place(from), to: place(to), bytes: 4096 }]).unwrap();
        device.read(to, &mut found).unwrap();
        device.free(from);
        device.free(to);
    }
    assert_eq!(found, bytes);
}
