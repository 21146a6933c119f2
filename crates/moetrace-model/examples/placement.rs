//! Prints where a model's weights would go on a kind of GPU, from its `config.json` alone.
//!
//! ```sh
//! cargo run --release -p moetrace-model --example placement -- config.json nf4 h200 6 64 65536
//! ```
//!
//! Budgets of GPU and host are in GB; the last argument, tokens of a pass, may be left out.
#![expect(clippy::print_stdout, reason = "an example prints")]

use std::error::Error;

use moetrace_model::{
    Budget, CudaMemoryPlan, CudaSettings, ModelConfig, PRESETS, Place, Precision, Preset, Wishes,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, precision, gpu, device, host, rest @ ..] = arguments.as_slice() else {
        return Err("CONFIG nf4|bf16|f16|f32 GPU DEVICE-GB HOST-GB [TOKENS]".into());
    };
    let config = ModelConfig::parse(&std::fs::read(config)?, config)?;
    let precision = match precision.as_str() {
        "nf4" => Precision::Nf4,
        "bf16" => Precision::Bf16,
        "f16" => Precision::F16,
        "f32" => Precision::F32,
        other => return Err(format!("precision {other}, expected nf4, bf16, f16 or f32").into()),
    };
    let names = PRESETS.map(|preset| preset.name).join(", ");
    let preset = Preset::named(gpu).ok_or_else(|| format!("GPU {gpu}, expected one of {names}"))?;
    let bytes = |text: &str| text.parse::<f64>().map(|gigabytes| (gigabytes * 1e9) as u64);
    let budget = Budget { device: bytes(device)?, host: bytes(host)? };
    let tokens_per_pass = rest.first().map(|tokens| tokens.parse()).transpose()?;
    let wishes = Wishes { tokens_per_pass, ..Wishes::default() };
    let settings = CudaSettings { precision, ..CudaSettings::default() };
    let plan = CudaMemoryPlan::new(&config, None, &settings, preset.architecture)?;
    match plan.place(preset.speed, budget, &wishes) {
        Err(shortfall) => println!("{shortfall:#?}"),
        Ok(planned) => {
            let p = &planned.placement;
            let count = |place| p.layers.iter().filter(|layer| **layer == place).count();
            let [device, host, disk] = [Place::Device, Place::Host, Place::Disk].map(count);
            println!(
                "layers: {device} on the GPU, {host} on the host, {disk} on disk; embedding {:?}",
                p.embedding
            );
            println!(
                "passes of {} tokens in chunks of {}, hidden states parked: {}, groups of experts: {}",
                p.tokens_per_pass, p.tokens_per_chunk, p.parks_hidden, p.expert_groups
            );
            println!("{:#?}\ntotal: {}\n{:#?}", planned.memory, planned.memory.total(), planned.speed);
            println!("waiting: {:.3}", planned.speed.waiting());
        }
    }
    Ok(())
}
