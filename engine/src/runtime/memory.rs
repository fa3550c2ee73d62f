//! Memory of the tensor library, over all models of the process.

pub use library::{clear_spare_memory, limit_memory, process_memory};

#[cfg(feature = "mlx")]
mod library {
    use mlx_rs::memory;

    use crate::runtime::Memory;

    /// What the library holds now.
    #[must_use]
    pub fn process_memory() -> Memory {
        let bytes = |count: Result<usize, mlx_rs::error::Exception>| {
            u64::try_from(count.unwrap_or(0)).unwrap_or(u64::MAX)
        };
        Memory {
            active_bytes: bytes(memory::active_memory()),
            peak_bytes: bytes(memory::peak_memory()),
            cache_bytes: bytes(memory::cache_memory()),
        }
    }

    /// Gives back what is kept for reuse. What cannot be given back stays: nothing depends on it.
    pub fn clear_spare_memory() {
        drop(memory::clear_cache());
    }

    /// Sets both soft limits; a library that takes no limit goes on without.
    pub fn limit_memory(memory_bytes: u64, cache_bytes: u64) {
        let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        drop(memory::set_memory_limit(size(memory_bytes)));
        drop(memory::set_cache_limit(size(cache_bytes)));
    }
}

#[cfg(not(feature = "mlx"))]
mod library {
    use crate::runtime::Memory;

    /// Without tensors there is nothing to hold.
    #[must_use]
    pub fn process_memory() -> Memory {
        Memory::default()
    }

    /// There is nothing to give back.
    pub fn clear_spare_memory() {}

    /// There is nothing to limit.
    pub fn limit_memory(_memory_bytes: u64, _cache_bytes: u64) {}
}
