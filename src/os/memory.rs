//! Memory that a process has needed once.

use std::ffi::c_void;

/// Gives back the pages of this program's code that its start has used: options, settings and help
/// are read once. What is needed again comes back from the file, a page fault each.
pub fn forget_start() {
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

/// Gives back what was freed and is kept for later: after a start that needed much for a moment.
pub fn give_back() {
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
        super::forget_start();
        assert_eq!("forgotten".len(), 9);
        super::forget_start();
    }
}
