//! Copies of a model on several devices, for data parallelism.
//!
//! A model on a backend with peers ([`Backend::peers`]) has a copy on each of them. Whoever runs passes deals the
//! micro-batches of a step to the copies ([`Model::on`]), each with gradients of its own. Then
//!
//! ```text
//! model.join(&mut grads);                      // each gradient's sum lies on the device that owns it
//! let norm = model.norm(&grads);
//! model.update_all(&grads, &mut moments, rule) // owners update, and everyone gets what came out
//! ```
//!
//! Each stored parameter has one owner, and only the owner has its optimizer state (ZeRO stage 1, Rajbhandari et al.
//! 2020, with whole parameters as shards, since Muon and adapters need them whole). Gradients are added in the order
//! of the devices, so the same devices give the same bits; another number of them adds in another order.

use super::parameters::{Grads, Layout, Moments, ParamInfo};
use super::{Model, Update};
use crate::backend::{Backend, Replicated};

impl<B: Backend> Model<B> {
    /// Devices that hold the model.
    pub fn devices(&self) -> usize {
        1 + self.copies.len()
    }

    /// The copy on a device; 0 is the model itself.
    pub fn on(&self, device: usize) -> &Model<B> {
        device.checked_sub(1).map_or(self, |copy| &self.copies[copy])
    }

    /// The device that has a trained tensor's optimizer state.
    pub fn owner(&self, info: &ParamInfo) -> usize {
        self.owners()[info.param]
    }

    fn owners(&self) -> Vec<usize> {
        owners(self.trained_layout(), self.devices())
    }

    /// Zeroed gradients on each device.
    pub fn grads_everywhere(&self) -> Vec<Grads<B>> {
        (0..self.devices()).map(|device| self.on(device).grads()).collect()
    }

    /// Zeroed optimizer state, each tensor's where its owner is; `on_host` as in [`Model::moments_on_host`].
    pub fn moments_of_owners(&self, on_host: bool) -> Vec<Moments<B>> {
        let owners = self.owners();
        let of = |device: usize| {
            let model = self.on(device);
            Moments::new(&model.backend, model.trained_layout(), on_host, |param| owners[param] == device)
        };
        (0..self.devices()).map(of).collect()
    }

    /// Adds the devices' gradients: each sum ends on its owner's device, and the others' are used up.
    pub fn join(&self, grads: &mut [Grads<B>]) {
        if grads.len() > 1 {
            let devices = grads.iter_mut().map(|grads| grads.stored.iter_mut().collect()).collect();
            self.backend.reduce(&mut replicated(devices, &self.owners()));
        }
    }

    /// The L2 norm of gradients that were joined; not finite if any of them is not.
    pub fn norm(&self, grads: &[Grads<B>]) -> f64 {
        let owners = self.owners();
        let mut sums = vec![0.0; owners.len()];
        for (device, grads) in grads.iter().enumerate() {
            let owned: Vec<usize> = (0..owners.len()).filter(|&param| owners[param] == device).collect();
            let buffers: Vec<&B::F32> = owned.iter().map(|&param| &grads.stored[param]).collect();
            for (param, sum) in owned.into_iter().zip(grads.backend.square_sums(&buffers)) {
                sums[param] = sum;
            }
        }
        sums.into_iter().sum::<f64>().sqrt()
    }

    /// One optimizer step on every device, with gradients that were joined: `rule` says for each of
    /// [`Model::trained`] what to do with it.
    pub fn update_all(
        &mut self,
        grads: &[Grads<B>],
        moments: &mut [Moments<B>],
        mut rule: impl FnMut(&ParamInfo) -> Update + Send,
    ) {
        let owners = self.owners();
        assert_eq!((grads.len(), moments.len()), (self.devices(), self.devices()), "one of each for every device");
        let mut rule = |device: usize, info: &ParamInfo| match owners[info.param] == device {
            true => rule(info),
            false => Update::Keep,
        };
        for (device, (grads, moments)) in grads.iter().zip(moments).enumerate() {
            let model = self.on_mut(device);
            model.backend.clone().run(|| {
                model.merge_adapters(-1.0);
                model.step_trained(grads, moments, &mut |info| rule(device, info));
            });
        }
        self.broadcast(&owners);
        for device in 0..self.devices() {
            let model = self.on_mut(device);
            model.backend.clone().run(|| {
                model.merge_adapters(1.0);
                model.publish_here();
            });
        }
    }

    fn on_mut(&mut self, device: usize) -> &mut Model<B> {
        match device {
            0 => self,
            _ => &mut self.copies[device - 1],
        }
    }

    /// Gives every device each trained tensor as its owner has it.
    fn broadcast(&mut self, owners: &[usize]) {
        if !self.copies.is_empty() {
            let backend = self.backend.clone();
            let devices = std::iter::once((&mut self.params, &mut self.lora));
            let copies = self.copies.iter_mut().map(|copy| (&mut copy.params, &mut copy.lora));
            let trained = devices.chain(copies).map(|(params, lora)| match lora {
                None => params.iter_mut().map(|param| &mut param.value).collect(),
                Some(lora) => lora.adapters.iter_mut().flat_map(|adapter| [&mut adapter.a, &mut adapter.b]).collect(),
            });
            backend.broadcast(&mut replicated(trained.collect(), owners));
        }
    }

    /// Gives every device the weights of the first.
    pub(super) fn spread_weights(&mut self) {
        if !self.copies.is_empty() {
            let backend = self.backend.clone();
            let devices = std::iter::once(&mut self.params).chain(self.copies.iter_mut().map(|copy| &mut copy.params));
            let weights: Vec<Vec<&mut B::F32>> =
                devices.map(|params| params.iter_mut().map(|param| &mut param.value).collect()).collect();
            let owners = vec![0; weights[0].len()];
            backend.broadcast(&mut replicated(weights, &owners));
        }
    }
}

/// What each device has of every buffer, by buffer.
fn replicated<'a, B: Backend>(devices: Vec<Vec<&'a mut B::F32>>, owners: &[usize]) -> Vec<Replicated<'a, B>> {
    let mut parts: Vec<Replicated<'a, B>> =
        owners.iter().map(|&owner| Replicated { copies: Vec::with_capacity(devices.len()), owner }).collect();
    for buffers in devices {
        assert_eq!(buffers.len(), parts.len(), "every device has the same buffers");
        parts.iter_mut().zip(buffers).for_each(|(part, buffer)| part.copies.push(buffer));
    }
    parts
}

/// The device of each stored parameter: the largest go first, each to the device that has least.
pub(super) fn owners(layout: &Layout, devices: usize) -> Vec<usize> {
    let size = |param: usize| layout.stored[param].0 * layout.stored[param].1;
    let mut order: Vec<usize> = (0..layout.stored.len()).collect();
    order.sort_by_key(|&param| (std::cmp::Reverse(size(param)), param));
    let (mut owners, mut held) = (vec![0; order.len()], vec![0usize; devices]);
    for param in order {
        let device = (0..devices).min_by_key(|&device| held[device]).expect("there is a device");
        owners[param] = device;
        held[device] += size(param);
    }
    owners
}
