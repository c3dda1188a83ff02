//! What every target shares: an allocator that counts, and the bound on what one input may take.
//!
//! The count is kept by `tallystone::testing::fuzz::memory`, where readers have narrower bounds.

use std::alloc::{GlobalAlloc, Layout, System};

use tallystone::testing::fuzz::memory::METER;

/// Bytes that one input may take at one time, whatever it asks for. A frame of a few hundred
/// bytes may stand for a million rows, which an answer may be made of.
pub const INPUT_BYTES: usize = 384 << 20;

/// The allocator of the system, with a count of the bytes that are out.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it is, and its answer comes back as it is;
// counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        METER.took(layout.size());
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        METER.took(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        METER.gave(layout.size());
        // SAFETY: the caller's promise about place and layout is passed on.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are there for as long as it takes to copy one to the other.
        METER.took(size);
        METER.gave(layout.size());
        // SAFETY: as above, and about the size.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// A fuzz target that hands its input to a function.
#[macro_export]
macro_rules! target {
    ($run:expr) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| {
            let run: fn(&[u8]) = $run;
            tallystone::testing::fuzz::memory::METER.bounded(
                "the input",
                $crate::INPUT_BYTES,
                || {
                    run(input);
                },
            );
        });
    };
}
