//! What the process begins with: its models, its keys and its limits.

use std::collections::BTreeSet;
use std::num::NonZeroU16;
use std::time::Duration;

use cereus_core::agent::{AgentConfig, Facts};
use cereus_core::draw::Seed;
use cereus_core::envelope::SecretKey;
use cereus_core::memory::MemoryCap;
use cereus_core::slots::{PressureLimits, SlotsConfig};
use cereus_core::time::Span;
use cereus_core::wire::REPORTED_SLOTS_MAX;
use zeroize::Zeroizing;

use crate::address::Address;
use crate::dial::Route;
use crate::host::Host;
use crate::offered::Offered;
use crate::weights::KnownHashes;
use crate::{ProviderError, Settings};

/// The way to the coordinator. The earning key can be spent with, so nobody on the way may read it.
pub(super) fn route(settings: &Settings) -> Result<Route, ProviderError> {
    let address = Address::parse(&settings.coordinator)?;
    if let Some(key) = &settings.earn_key
        && !address.is_confidential()
    {
        return Err(ProviderError::EarnKeyExposed {
            coordinator: settings.coordinator.clone(),
            from: key.from.clone(),
        });
    }
    Route::new(address, settings.authorities.as_deref())
}

/// Looks at each model's files, and reads no weights.
pub(super) fn offered(settings: &Settings) -> Result<Vec<Offered>, ProviderError> {
    let count = settings.models.len();
    if count == 0 {
        return Err(ProviderError::NoModels);
    }
    if count > REPORTED_SLOTS_MAX {
        let max = REPORTED_SLOTS_MAX;
        return Err(ProviderError::TooManyModels { count, max });
    }
    let known = KnownHashes::open(&settings.data);
    let mut names = BTreeSet::new();
    let mut offered = Vec::with_capacity(count);
    for source in &settings.models {
        let id = source.id.clone();
        if !names.insert(id.clone()) {
            return Err(ProviderError::ModelTwice(id));
        }
        let one = Offered::open(source.clone(), &known);
        offered.push(one.map_err(|error| ProviderError::Model { id, error })?);
    }
    Ok(offered)
}

pub(super) fn slots_config(settings: &Settings, offered: &[Offered]) -> SlotsConfig {
    let memory = &settings.memory;
    let slots_max = memory.slots_max.max(1);
    let models = u16::try_from(offered.len()).unwrap_or(u16::MAX);
    let jobs_max = settings
        .rows_max
        .saturating_mul(models.min(slots_max.into()));
    SlotsConfig {
        cap: MemoryCap::new(memory.probe.read().physical_bytes, memory.policy),
        builds: offered.iter().map(Offered::spec).collect(),
        slots_max,
        idle_wait: span(memory.idle_wait),
        jobs_max: jobs_max.max(1),
        pressure: PressureLimits::reference(),
    }
}

pub(super) fn agent_config(
    settings: &Settings,
    host: &Host,
    offered: &[Offered],
    slots: &SlotsConfig,
) -> Result<AgentConfig, ProviderError> {
    // Fresh for each process: what was sealed to an earlier one stays sealed.
    let secret = Zeroizing::new(random::<32>()?);
    let hash = |one: &Offered| Some((one.id().to_owned(), one.hash()?.to_owned()));
    Ok(AgentConfig {
        seed: fresh_seed()?,
        secret: SecretKey::from_bytes(*secret),
        nonce_prefix: random()?,
        builds: offered.iter().map(|one| one.id().to_owned()).collect(),
        jobs_max: NonZeroU16::new(slots.jobs_max).unwrap_or(NonZeroU16::MIN),
        drain_wait_max: span(settings.drain_wait_max),
        schedule: settings.hours.schedule.clone(),
        facts: Facts {
            sip_enabled: host.sip_enabled,
            rdma_disabled: host.rdma_disabled,
            secure_boot_enabled: None,
            binary_hash: String::new(),
            model_hashes: offered.iter().filter_map(hash).collect(),
        },
    })
}

fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

fn random<const SIZE: usize>() -> Result<[u8; SIZE], ProviderError> {
    let mut bytes = [0; SIZE];
    getrandom::fill(&mut bytes).map_err(|_| ProviderError::NoRandomness)?;
    Ok(bytes)
}

pub(super) fn fresh_seed() -> Result<Seed, ProviderError> {
    let bytes: [u8; 16] = random()?;
    let (low, high) = bytes.split_at(8);
    let word = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
    Ok(Seed([word(low), word(high)]))
}
