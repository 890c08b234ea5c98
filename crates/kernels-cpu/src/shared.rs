//! A buffer that several threads write to, each in its own ranges.
//!
//! The portable build guards the buffer with a lock, so that no access is unchecked there.

pub(crate) use self::body::Shared;

#[cfg(not(feature = "portable"))]
mod body {
    //! Ranges as slices of one buffer; the caller ensures that they do not overlap.

    use std::marker::PhantomData;

    #[derive(Clone, Debug)]
    pub(crate) struct Shared<'a> {
        values: *mut f32,
        len: usize,
        borrowed: PhantomData<&'a mut [f32]>,
    }

    #[allow(unsafe_code)]
    // SAFETY: it points to plain numbers that it borrows mutably; the contract of `with` rules out
    // overlapping writes.
    unsafe impl Send for Shared<'_> {}
    #[allow(unsafe_code)]
    // SAFETY: as above.
    unsafe impl Sync for Shared<'_> {}

    impl<'a> Shared<'a> {
        pub(crate) fn new(values: &'a mut [f32]) -> Self {
            let len = values.len();
            Self { values: values.as_mut_ptr(), len, borrowed: PhantomData }
        }

        /// Whether the buffer has no values.
        pub(crate) fn is_empty(&self) -> bool {
            self.len == 0
        }

        /// Calls `write` with `n` values from `start` on.
        ///
        /// # Safety
        /// Until `with` returns, no other call on any thread may use an overlapping range.
        ///
        /// # Panics
        /// If the range is not within the buffer.
        #[allow(unsafe_code)]
        #[inline]
        pub(crate) unsafe fn with<R>(
            &self,
            start: usize,
            n: usize,
            write: impl FnOnce(&mut [f32]) -> R,
        ) -> R {
            let end = start.checked_add(n);
            assert!(end.is_some_and(|end| end <= self.len), "{n} from {start} of {}", self.len);
            // SAFETY: the range is within the buffer (just checked), and nothing else refers to it while
            // `write` runs (the caller's promise).
            write(unsafe { std::slice::from_raw_parts_mut(self.values.add(start), n) })
        }
    }
}

#[cfg(feature = "portable")]
mod body {
    //! Ranges behind a lock: one at a time.

    use std::sync::{Arc, Mutex, PoisonError};

    #[derive(Clone, Debug)]
    pub(crate) struct Shared<'a> {
        values: Arc<Mutex<&'a mut [f32]>>,
        len: usize,
    }

    impl<'a> Shared<'a> {
        pub(crate) fn new(values: &'a mut [f32]) -> Self {
            let len = values.len();
            Self { values: Arc::new(Mutex::new(values)), len }
        }

        /// Whether the buffer has no values.
        pub(crate) fn is_empty(&self) -> bool {
            self.len == 0
        }

        /// Calls `write` with `n` values from `start` on.
        ///
        /// # Safety
        /// None is needed here: the signature is that of the other implementation.
        ///
        /// # Panics
        /// If the range is not within the buffer.
        #[allow(unsafe_code)]
        pub(crate) unsafe fn with<R>(
            &self,
            start: usize,
            n: usize,
            write: impl FnOnce(&mut [f32]) -> R,
        ) -> R {
            let end = start.checked_add(n);
            assert!(end.is_some_and(|end| end <= self.len), "{n} from {start} of {}", self.len);
            // A panic in another task is reported there; a poisoned lock adds nothing.
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            write(&mut values[start..start + n])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Shared;

    #[test]
    fn a_range_has_its_own_values() {
        let mut values = [0.0, 1.0, 2.0, 3.0];
        let shared = Shared::new(&mut values);
        #[allow(unsafe_code)]
        // SAFETY: there is no other range.
        let found = unsafe {
            shared.with(1, 2, |part| {
                part[0] = 7.0;
                part.to_vec()
            })
        };
        assert_eq!(found, [7.0, 2.0]);
        assert_eq!(values, [0.0, 7.0, 2.0, 3.0]);
    }

    #[test]
    #[should_panic(expected = "3 from 2 of 4")]
    fn a_range_beyond_the_end_panics() {
        let mut values = [0.0; 4];
        let shared = Shared::new(&mut values);
        #[allow(unsafe_code)]
        // SAFETY: there is no other range.
        unsafe {
            shared.with(2, 3, |_| ());
        };
    }
}
