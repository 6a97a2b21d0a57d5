//! Memory that is not needed any more.

use std::ffi::c_void;

/// Releases the pages of this program's code that only its start has used: options, settings and
/// help are read once. Pages that are needed again are read from the file, by a page fault each.
pub fn release_startup_pages() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    let program = program.to_string_lossy();
    for line in maps.lines().filter(|line| line.ends_with(&*program)) {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some("r-xp")) = (fields.next(), fields.next()) else { continue };
        let number = |text: &str| usize::from_str_radix(text, 16).ok();
        let Some((from, to)) = range.split_once('-') else { continue };
        let (Some(from), Some(to)) = (number(from), number(to)) else { continue };
        // SAFETY: code is never written to, so what is forgotten is what the file has; whoever
        // executes it meanwhile waits for the page.
        unsafe { libc::madvise(from as *mut c_void, to - from, libc::MADV_DONTNEED) };
    }
}

/// Returns freed memory to the kernel, after work that needed much for a moment.
pub fn trim_heap() {
    // SAFETY: takes a number only; memory in use is not touched.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_forgotten_comes_back() {
        super::release_startup_pages();
        assert_eq!("forgotten".len(), 9);
        super::release_startup_pages();
    }
}
