//! How much of a hole should one touch decide?
//!
//! One page, if pages are touched here and there; more and more, if they are touched one after the other, so that the way to
//! whoever knows is gone seldom.

/// Bytes of a page.
const PAGE_SIZE: u64 = 4096;
/// Most bytes that one touch decides: a huge page.
const WINDOW_MAX: u64 = 2 << 20;

/// How one mapping has been touched so far.
#[derive(Debug)]
pub struct Window {
    size: u64,
    /// Where the last window ended.
    end: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { size: PAGE_SIZE, end: 0 }
    }
}

impl Window {
    /// The window for a touch of this page: so many bytes around it, aligned to their number.
    pub fn next(&mut self, offset: u64) -> u64 {
        let goes_on = self.end > 0 && offset == self.end;
        self.size = if goes_on { (self.size * 4).min(WINDOW_MAX) } else { PAGE_SIZE };
        // What lies before it in an aligned window is there already.
        self.end = (offset - offset % self.size).saturating_add(self.size);
        self.size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_while_pages_are_touched_in_order() {
        let mut window = Window::default();
        let mut offset = 0;
        let mut touches = 0;
        while offset < 64 << 20 {
            let size = window.next(offset);
            assert!(size.is_power_of_two() && (PAGE_SIZE..=WINDOW_MAX).contains(&size));
            offset = offset - offset % size + size;
            touches += 1;
        }
        assert!(touches < 64, "{touches} touches of 64 MiB");
        assert_eq!(window.next(5 << 30), PAGE_SIZE, "elsewhere it begins anew");
        assert_eq!(window.next((5 << 30) - 4096), PAGE_SIZE, "backwards is not in order");
        assert_eq!(window.next(u64::MAX - 4095), PAGE_SIZE);
    }
}
