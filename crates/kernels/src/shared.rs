//! A buffer that several threads write to, each in places of its own.
//!
//! The portable build keeps the promise by a lock, so that nothing goes unchecked there. It
//! deliberately doesn't say who writes where: that is the caller's.

pub(crate) use self::body::Shared;

#[cfg(not(feature = "portable"))]
mod body {
    //! Parts as slices of one buffer; the caller sees to it that they don't overlap.

    use std::marker::PhantomData;

    #[derive(Clone, Debug)]
    pub(crate) struct Shared<'a> {
        values: *mut f32,
        len: usize,
        borrowed: PhantomData<&'a mut [f32]>,
    }

    #[allow(unsafe_code)]
    // SAFETY: it is a pointer to plain numbers that it has the only borrow of; `with` says what
    // callers keep to.
    unsafe impl Send for Shared<'_> {}
    #[allow(unsafe_code)]
    // SAFETY: as above.
    unsafe impl Sync for Shared<'_> {}

    impl<'a> Shared<'a> {
        pub(crate) fn new(values: &'a mut [f32]) -> Self {
            let len = values.len();
            Self { values: values.as_mut_ptr(), len, borrowed: PhantomData }
        }

        /// Whether there is nothing to write to.
        pub(crate) fn is_empty(&self) -> bool {
            self.len == 0
        }

        /// Calls `write` with `n` values from `start` on.
        ///
        /// # Safety
        /// Until it returns, no other call may have values that overlap these, on any thread.
        ///
        /// # Panics
        /// If they don't lie within the buffer.
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
            // SAFETY: it lies within the buffer (just checked), and nothing else refers to it while
            // `write` runs (the caller).
            write(unsafe { std::slice::from_raw_parts_mut(self.values.add(start), n) })
        }
    }
}

#[cfg(feature = "portable")]
mod body {
    //! Parts behind a lock: one at a time.

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

        /// Whether there is nothing to write to.
        pub(crate) fn is_empty(&self) -> bool {
            self.len == 0
        }

        /// Calls `write` with `n` values from `start` on.
        ///
        /// # Safety
        /// Nothing is unchecked here. It has the signature of the other body, whose callers promise
        /// something.
        ///
        /// # Panics
        /// If they don't lie within the buffer.
        #[allow(unsafe_code)]
        pub(crate) unsafe fn with<R>(
            &self,
            start: usize,
            n: usize,
            write: impl FnOnce(&mut [f32]) -> R,
        ) -> R {
            let end = start.checked_add(n);
            assert!(end.is_some_and(|end| end <= self.len), "{n} from {start} of {}", self.len);
            // A panic in another task says more than the lock that it left poisoned.
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            write(&mut values[start..start + n])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Shared;

    #[test]
    fn a_part_holds_its_own_values() {
        let mut values = [0.0, 1.0, 2.0, 3.0];
        let shared = Shared::new(&mut values);
        #[allow(unsafe_code)]
        // SAFETY: there is no other part.
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
    fn a_part_lies_within() {
        let mut values = [0.0; 4];
        let shared = Shared::new(&mut values);
        #[allow(unsafe_code)]
        // SAFETY: there is no other part.
        unsafe {
            shared.with(2, 3, |_| ());
        };
    }
}
