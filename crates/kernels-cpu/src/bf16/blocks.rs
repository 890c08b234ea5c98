//! Division of a product into tasks and tiles.
//!
//! The smaller side is packed once for all tasks; the larger one is packed by the task that uses it, so that it is read
//! from memory once. Borders follow from the shape alone, so results do not depend on the number of threads.

use std::cell::Cell;

use rayon::prelude::*;

use super::micro::{self, Tile};
use super::pack::{self, COLUMNS, Line, PAIRS, Packed, ROWS, lines_of_columns, lines_of_rows};
use crate::matrix::{Matrix, MatrixMut, Write};
use crate::team::{self, AllThreads as _};

/// Panels of rows in a task if all tasks share the rows.
const SHARED_ROW_PANELS: usize = 64;
/// Panels of columns in such a task.
const OWN_COLUMN_PANELS: usize = 2;
/// Panels of rows in a task that packs its own rows: a quarter of a megabyte.
const OWN_ROW_PANELS: usize = 8;
/// Panels of columns in such a task.
const SHARED_COLUMN_PANELS: usize = 16;

/// Division of a product.
struct Division {
    /// Panels of all rows and columns.
    row_panels: usize,
    column_panels: usize,
    /// Tasks along rows and columns.
    row_tasks: usize,
    column_tasks: usize,
    rows_are_shared: bool,
    interleaved: bool,
    /// The inner size.
    inner: usize,
}

impl Division {
    fn new<T: Packed>(a: Matrix, b: Matrix<'_, T>) -> Self {
        let (row_panels, column_panels) =
            (a.n_rows().div_ceil(ROWS), b.n_columns().div_ceil(COLUMNS));
        let rows_are_shared = a.n_rows() <= b.n_columns();
        let (rows, columns) = if rows_are_shared {
            (SHARED_ROW_PANELS, OWN_COLUMN_PANELS)
        } else {
            (OWN_ROW_PANELS, SHARED_COLUMN_PANELS)
        };
        Self {
            row_panels,
            column_panels,
            row_tasks: row_panels.div_ceil(rows),
            column_tasks: column_panels.div_ceil(columns),
            rows_are_shared,
            interleaved: a.is_transposed(),
            inner: a.n_columns(),
        }
    }

    /// Start and number of pairs of each block of the inner index; the blocks have nearly one size.
    fn inner_blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let inner = self.inner;
        let n_blocks = inner.div_ceil(2 * PAIRS).max(1);
        let size = inner.div_ceil(n_blocks).next_multiple_of(32);
        let starts = (0..inner).step_by(size.max(1));
        starts.map(move |start| (start, (inner - start).min(size).div_ceil(2)))
    }

    fn rows_of(&self, task: usize) -> std::ops::Range<usize> {
        part(self.row_panels, self.row_tasks, task / self.column_tasks)
    }

    fn columns_of(&self, task: usize) -> std::ops::Range<usize> {
        part(self.column_panels, self.column_tasks, task % self.column_tasks)
    }

    /// Lines of one block of the inner index, for one panel.
    fn lines(&self, rows: bool, pairs: usize) -> usize {
        if rows { lines_of_rows(self.interleaved, pairs) } else { lines_of_columns(pairs) }
    }

    /// Index of the first panel of each block of the inner index in the shared side.
    fn shared_starts(&self) -> Vec<usize> {
        let panels = if self.rows_are_shared { self.row_panels } else { self.column_panels };
        let sizes =
            self.inner_blocks().map(|(_, pairs)| panels * self.lines(self.rows_are_shared, pairs));
        let mut starts = vec![0];
        for size in sizes {
            starts.push(starts[starts.len() - 1] + size);
        }
        starts
    }
}

/// Part `idx` of `0..n` in `parts` parts of nearly one size.
fn part(n: usize, parts: usize, idx: usize) -> std::ops::Range<usize> {
    n * idx / parts..n * (idx + 1) / parts
}

thread_local! {
    static SHARED: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
    static OWN: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `run` with `n` lines of arbitrary contents, which the thread keeps for the next call.
fn with_lines<R>(
    kept: &'static std::thread::LocalKey<Cell<Vec<Line>>>,
    n: usize,
    run: impl FnOnce(&mut [Line]) -> R,
) -> R {
    // A nested call finds no buffer here and allocates its own.
    let mut lines = kept.take();
    if lines.len() < n {
        lines.resize(n, Line::ZERO);
    }
    let out = run(&mut lines[..n]);
    kept.set(lines);
    out
}

/// The output, shared by tasks.
#[derive(Clone, Copy)]
struct Out {
    values: *mut f32,
    row_stride: usize,
    rows: usize,
    columns: usize,
}

#[allow(unsafe_code)]
// SAFETY: each task writes its own tiles.
unsafe impl Send for Out {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl Sync for Out {}

impl Out {
    fn tile(self, row_panel: usize, column_panel: usize) -> Tile {
        let (row, column) = (row_panel * ROWS, column_panel * COLUMNS);
        Tile {
            values: self.values.wrapping_add(row * self.row_stride + column),
            row_stride: self.row_stride,
            rows: (self.rows - row).min(ROWS),
            columns: (self.columns - column).min(COLUMNS),
        }
    }
}

/// Like [`super::multiply`], on a processor with bf16 products.
pub(super) fn multiply<T: Packed>(
    mut out: MatrixMut,
    a: Matrix,
    b: Matrix<'_, T>,
    write: Write,
    scale: f32,
    parallel: bool,
) {
    out.assert_product(a, (b.n_rows(), b.n_columns()));
    if out.n_rows() == 0 || out.n_columns() == 0 {
        return;
    }
    if a.n_columns() == 0 {
        if write == Write::Over {
            out.fill(0.0);
        }
        return;
    }
    let (rows, columns, row_stride) = (out.n_rows(), out.n_columns(), out.row_stride());
    let out = Out { values: out.as_mut_ptr(), row_stride, rows, columns };
    let division = Division::new(a, b);
    let starts = division.shared_starts();
    with_lines(&SHARED, starts[starts.len() - 1], |shared| {
        pack_shared(shared, &division, &starts, &Side::of(&division, true, a, b), parallel);
        let (shared, own) = (&*shared, Side::of(&division, false, a, b));
        let run = |task: usize| {
            multiply_task(out, &division, (shared, &starts), &own, task, write, scale);
        };
        let tasks = division.row_tasks * division.column_tasks;
        if parallel && tasks > 1 {
            team::for_each(tasks, run);
        } else {
            (0..tasks).for_each(run);
        }
    });
}

/// One side of a product.
enum Side<'a, T> {
    Rows(Matrix<'a>),
    Columns(Matrix<'a, T>),
}

impl<'a, T: Packed> Side<'a, T> {
    /// The side whose panels all tasks share, or the other.
    fn of(division: &Division, shared: bool, a: Matrix<'a>, b: Matrix<'a, T>) -> Self {
        if division.rows_are_shared == shared { Self::Rows(a) } else { Self::Columns(b) }
    }

    fn pack(&self, lines: &mut [Line], panel: usize, start: usize, pairs: usize) {
        #[allow(unsafe_code)]
        // SAFETY: the caller checked that the processor has the instructions.
        unsafe {
            match self {
                Self::Rows(a) => pack::rows(lines, *a, panel * ROWS, start, pairs),
                Self::Columns(b) => pack::columns(lines, *b, panel * COLUMNS, start, pairs),
            }
        }
    }
}

fn pack_shared<T: Packed>(
    shared: &mut [Line],
    division: &Division,
    starts: &[usize],
    side: &Side<'_, T>,
    parallel: bool,
) {
    for ((start, pairs), bounds) in division.inner_blocks().zip(starts.windows(2)) {
        let lines = &mut shared[bounds[0]..bounds[1]];
        let size = division.lines(division.rows_are_shared, pairs);
        let pack = |(panel, lines): (usize, &mut [Line])| side.pack(lines, panel, start, pairs);
        if parallel {
            lines.par_chunks_mut(size).enumerate().on_all_threads(pack);
        } else {
            lines.chunks_mut(size).enumerate().for_each(pack);
        }
    }
}

fn multiply_task<T: Packed>(
    out: Out,
    division: &Division,
    (shared, starts): (&[Line], &[usize]),
    own: &Side<'_, T>,
    task: usize,
    write: Write,
    scale: f32,
) {
    let (row_panels, column_panels) = (division.rows_of(task), division.columns_of(task));
    let own_rows = !division.rows_are_shared;
    let own_panels = if own_rows { row_panels.clone() } else { column_panels.clone() };
    with_lines(&OWN, own_panels.len() * division.lines(own_rows, PAIRS), |own_lines| {
        for (block, (start, pairs)) in division.inner_blocks().enumerate() {
            let (rows_size, columns_size) =
                (division.lines(true, pairs), division.lines(false, pairs));
            let own_size = division.lines(own_rows, pairs);
            for (panel, lines) in own_panels.clone().zip(own_lines.chunks_mut(own_size)) {
                own.pack(lines, panel, start, pairs);
            }
            let shared = &shared[starts[block]..starts[block + 1]];
            let (a, b) = if own_rows { (&*own_lines, shared) } else { (shared, &*own_lines) };
            let (first_row, first_column) =
                if own_rows { (row_panels.start, 0) } else { (0, column_panels.start) };
            let add = write == Write::Add || block > 0;
            for column_panel in column_panels.clone() {
                let b = &b[(column_panel - first_column) * columns_size..][..columns_size];
                for row_panel in row_panels.clone() {
                    let a = &a[(row_panel - first_row) * rows_size..][..rows_size];
                    let tile = out.tile(row_panel, column_panel);
                    #[allow(unsafe_code)]
                    // SAFETY: the processor has the instructions; only this task writes the tile, which is
                    // within the borrowed output; if `add`, the caller or the previous block wrote it.
                    unsafe {
                        if division.interleaved {
                            micro::tile::<true>(tile, a, b, pairs, add, scale);
                        } else {
                            micro::tile::<false>(tile, a, b, pairs, add, scale);
                        }
                    }
                }
            }
        }
    });
}
