//! Memory that Python and frameworks look into: the buffer protocol and DLPack.
#![allow(unsafe_code)]

use crate::{Buffer, Dtype};
use dlpack_rs::ffi::{
    DLDataType, DLDataTypeCode as Code, DLDevice, DLDeviceType, DLManagedTensor, DLManagedTensorVersioned, DLPackVersion, DLTensor,
};
use pyo3::exceptions::{PyBufferError, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{CStr, c_int, c_void};
use std::sync::Arc;

/// A buffer that several Python objects may look into, and write to.
///
/// Rust makes no reference to its bytes once it is shared: whoever holds the Python objects decides who writes when, as with any array.
pub struct Shared {
    // Kept for its memory; only the pointer below is used.
    _buffer: Buffer,
    data: *mut u8,
    n_bytes: usize,
}

// SAFETY: the pointer goes to memory that the buffer owns, that does not move, and that is freed with it; handing it to another thread changes nothing.
unsafe impl Send for Shared {}
// SAFETY: shared access only copies pointer and length.
unsafe impl Sync for Shared {}

impl Shared {
    /// Takes a buffer over.
    pub fn new(mut buffer: Buffer) -> Arc<Self> {
        let (data, n_bytes) = (buffer.as_mut_ptr(), buffer.len());
        Arc::new(Self {
            _buffer: buffer,
            data,
            n_bytes,
        })
    }

    /// Length in bytes.
    pub fn n_bytes(&self) -> usize {
        self.n_bytes
    }

    /// Fills a Python buffer view that keeps `owner` alive.
    ///
    /// # Safety
    /// `view` must be what Python handed to `__getbuffer__` of `owner`, which must own `self`.
    pub unsafe fn fill(&self, owner: &Bound<'_, PyAny>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        // SAFETY: the caller's promise; the view holds a reference to the owner, and so the memory.
        let result = unsafe { ffi::PyBuffer_FillInfo(view, owner.as_ptr(), self.data.cast(), self.n_bytes as isize, 0, flags) };
        if result == -1 { Err(PyErr::fetch(owner.py())) } else { Ok(()) }
    }
}

/// What a consumer's tensor keeps alive.
struct Context {
    _shared: Arc<Shared>,
    shape: Box<[i64]>,
    strides: Box<[i64]>,
}

/// The DLPack type of a dtype, and the shape in its elements. Types that DLPack lacks are bytes.
fn element(dtype: Dtype, shape: &[u64]) -> (DLDataType, Vec<i64>) {
    let mut shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
    let (code, bits, lanes) = match dtype {
        Dtype::BOOL => (Code::kDLBool, 8, 1),
        Dtype::U8 => (Code::kDLUInt, 8, 1),
        Dtype::U16 => (Code::kDLUInt, 16, 1),
        Dtype::U32 => (Code::kDLUInt, 32, 1),
        Dtype::U64 => (Code::kDLUInt, 64, 1),
        Dtype::I8 => (Code::kDLInt, 8, 1),
        Dtype::I16 => (Code::kDLInt, 16, 1),
        Dtype::I32 => (Code::kDLInt, 32, 1),
        Dtype::I64 => (Code::kDLInt, 64, 1),
        Dtype::F16 => (Code::kDLFloat, 16, 1),
        Dtype::F32 => (Code::kDLFloat, 32, 1),
        Dtype::F64 => (Code::kDLFloat, 64, 1),
        Dtype::BF16 => (Code::kDLBfloat, 16, 1),
        Dtype::C64 => (Code::kDLComplex, 64, 1),
        Dtype::F8_E4M3 => (Code::kDLFloat8_e4m3fn, 8, 1),
        Dtype::F8_E4M3FNUZ => (Code::kDLFloat8_e4m3fnuz, 8, 1),
        Dtype::F8_E5M2 => (Code::kDLFloat8_e5m2, 8, 1),
        Dtype::F8_E5M2FNUZ => (Code::kDLFloat8_e5m2fnuz, 8, 1),
        Dtype::F8_E8M0 => (Code::kDLFloat8_e8m0fnu, 8, 1),
        Dtype::F4 if shape.last().is_some_and(|last| last % 2 == 0) => {
            if let Some(last) = shape.last_mut() {
                *last /= 2;
            }
            (Code::kDLFloat4_e2m1fn, 4, 2)
        }
        Dtype::F4 | Dtype::F6_E2M3 | Dtype::F6_E3M2 => {
            let n_elements: i64 = shape.iter().product();
            shape = vec![n_elements * dtype.bits() as i64 / 8];
            (Code::kDLUInt, 8, 1)
        }
    };
    (
        DLDataType {
            code: code as u8,
            bits,
            lanes,
        },
        shape,
    )
}

const VERSIONED: &CStr = c"dltensor_versioned";
const LEGACY: &CStr = c"dltensor";
const USED: &CStr = c"used_dltensor";

/// A DLPack capsule of the buffer; versioned if the consumer knows those.
pub fn capsule<'py>(py: Python<'py>, shared: &Arc<Shared>, dtype: Dtype, shape: &[u64], is_versioned: bool) -> PyResult<Bound<'py, PyAny>> {
    let (dtype, shape) = element(dtype, shape);
    let mut strides = vec![1i64; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i].max(1);
    }
    let mut context = Box::new(Context {
        _shared: shared.clone(),
        shape: shape.into(),
        strides: strides.into(),
    });
    let dl_tensor = DLTensor {
        data: shared.data.cast(),
        device: DLDevice {
            device_type: DLDeviceType::kDLCPU,
            device_id: 0,
        },
        ndim: context.shape.len() as i32,
        dtype,
        shape: context.shape.as_mut_ptr(),
        strides: context.strides.as_mut_ptr(),
        byte_offset: 0,
    };
    let manager_ctx: *mut c_void = Box::into_raw(context).cast();
    // SAFETY: the capsules own what they point to until a consumer renames them; shape and strides lie in the context, which does not move.
    let (made, free): (*mut ffi::PyObject, Box<dyn FnOnce()>) = unsafe {
        if is_versioned {
            let version = DLPackVersion { major: 1, minor: 0 };
            let managed = DLManagedTensorVersioned {
                version,
                manager_ctx,
                deleter: Some(delete_versioned),
                flags: 0,
                dl_tensor,
            };
            let managed = Box::into_raw(Box::new(managed));
            (
                ffi::PyCapsule_New(managed.cast(), VERSIONED.as_ptr(), Some(drop_versioned)),
                Box::new(move || delete_versioned(managed)),
            )
        } else {
            let managed = Box::into_raw(Box::new(DLManagedTensor {
                dl_tensor,
                manager_ctx,
                deleter: Some(delete_legacy),
            }));
            (
                ffi::PyCapsule_New(managed.cast(), LEGACY.as_ptr(), Some(drop_legacy)),
                Box::new(move || delete_legacy(managed)),
            )
        }
    };
    if made.is_null() {
        free();
        return Err(PyErr::take(py).unwrap_or_else(|| PyBufferError::new_err("no capsule could be made")));
    }
    // SAFETY: a new reference, not null.
    Ok(unsafe { Bound::from_owned_ptr(py, made) })
}

// Consumers call deleters without the interpreter lock, also while it shuts down: they free Rust memory and touch nothing of Python.

unsafe extern "C" fn delete_versioned(managed: *mut DLManagedTensorVersioned) {
    if !managed.is_null() {
        // SAFETY: made by `capsule` from these two boxes, and deleted once, by whoever owns the capsule's contents.
        unsafe { drop(Box::from_raw(Box::from_raw(managed).manager_ctx.cast::<Context>())) }
    }
}

unsafe extern "C" fn delete_legacy(managed: *mut DLManagedTensor) {
    if !managed.is_null() {
        // SAFETY: as above.
        unsafe { drop(Box::from_raw(Box::from_raw(managed).manager_ctx.cast::<Context>())) }
    }
}

// A consumer renames the capsule and deletes the contents itself; one that still has its name owns them.

unsafe extern "C" fn drop_versioned(capsule: *mut ffi::PyObject) {
    // SAFETY: Python calls this with the capsule that is being freed.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, VERSIONED.as_ptr()) == 1 {
            delete_versioned(ffi::PyCapsule_GetPointer(capsule, VERSIONED.as_ptr()).cast());
        }
    }
}

unsafe extern "C" fn drop_legacy(capsule: *mut ffi::PyObject) {
    // SAFETY: as above.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, LEGACY.as_ptr()) == 1 {
            delete_legacy(ffi::PyCapsule_GetPointer(capsule, LEGACY.as_ptr()).cast());
        }
    }
}

/// The bytes of any object that exports a contiguous buffer, for as long as `held` lives.
pub struct Bytes {
    view: Box<ffi::Py_buffer>,
}

// SAFETY: the view is read only here, and released with the interpreter attached.
unsafe impl Send for Bytes {}
// SAFETY: as above.
unsafe impl Sync for Bytes {}

impl Bytes {
    /// Takes a view of the object's bytes.
    pub fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        // SAFETY: all-zero is what C callers pass; Python fills it or reports an error.
        let mut view: Box<ffi::Py_buffer> = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: the object is alive, and the view stays where it is.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &mut *view, ffi::PyBUF_SIMPLE) } == -1 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(Self { view })
    }

    /// The bytes. Whoever writes to them meanwhile changes what is read, as with any reader of a Python buffer.
    pub fn as_slice(&self) -> &[u8] {
        if self.view.len == 0 {
            return &[];
        }
        // SAFETY: a simple buffer is that many bytes, which the exporter keeps while the view is held.
        unsafe { std::slice::from_raw_parts(self.view.buf.cast::<u8>(), self.view.len as usize) }
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        Python::attach(|_| {
            // SAFETY: the view was filled and is released once.
            unsafe { ffi::PyBuffer_Release(&mut *self.view) }
        });
    }
}

/// Memory of an object that exports DLPack, for as long as this lives: of a torch tensor or a numpy array on the CPU, in C order.
struct Lent {
    managed: *mut DLManagedTensor,
    data: *mut u8,
    n_bytes: usize,
}

// SAFETY: the pointers go to memory that the exporter keeps until its deleter is called, which DLPack allows from any thread.
unsafe impl Send for Lent {}

impl Lent {
    fn of(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let capsule = object.call_method0("__dlpack__")?;
        // SAFETY: the object is alive; a capsule of that name holds such a structure, which belongs to whoever renames the capsule.
        let managed: *mut DLManagedTensor = unsafe {
            if ffi::PyCapsule_IsValid(capsule.as_ptr(), LEGACY.as_ptr()) != 1 {
                return Err(PyTypeError::new_err("__dlpack__ gave no capsule of a tensor"));
            }
            let managed = ffi::PyCapsule_GetPointer(capsule.as_ptr(), LEGACY.as_ptr()).cast();
            if ffi::PyCapsule_SetName(capsule.as_ptr(), USED.as_ptr()) != 0 {
                return Err(PyErr::fetch(object.py()));
            }
            managed
        };
        let mut lent = Self {
            managed,
            data: std::ptr::null_mut(),
            n_bytes: 0,
        };
        // SAFETY: it is what the capsule held, and lives until the deleter is called.
        let tensor = unsafe { &(*managed).dl_tensor };
        if !matches!(tensor.device.device_type, DLDeviceType::kDLCPU | DLDeviceType::kDLCUDAHost) {
            return Err(PyBufferError::new_err("tensors are decoded into the processor's memory only"));
        }
        let n_dims = tensor.ndim as usize;
        let mut n_elements: i64 = 1;
        for dim in (0..n_dims).rev() {
            // SAFETY: shape has one number for each dimension; so do strides, unless they are left out.
            let (size, stride) = unsafe {
                (
                    *tensor.shape.add(dim),
                    if tensor.strides.is_null() {
                        n_elements
                    } else {
                        *tensor.strides.add(dim)
                    },
                )
            };
            if size != 1 && stride != n_elements {
                return Err(PyBufferError::new_err("tensors are decoded into memory in C order only"));
            }
            n_elements *= size;
        }
        lent.n_bytes = n_elements as usize * tensor.dtype.bits as usize * tensor.dtype.lanes as usize / 8;
        lent.data = tensor.data.cast::<u8>().wrapping_add(tensor.byte_offset as usize);
        Ok(lent)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: taken out of its capsule, and deleted once.
        unsafe {
            if let Some(deleter) = (*self.managed).deleter {
                deleter(self.managed);
            }
        }
    }
}

/// Memory of several objects, to be written to. Whoever reads it meanwhile may see some of the old and some of the new, as with any array.
pub struct Outputs(Vec<Lent>);

impl Outputs {
    /// Borrows the objects' memory, no byte of it twice.
    pub fn of(objects: &[Bound<'_, PyAny>]) -> PyResult<Self> {
        let lent = objects.iter().map(Lent::of).collect::<PyResult<Vec<_>>>()?;
        let mut spans: Vec<(usize, usize)> = lent
            .iter()
            .map(|one| (one.data as usize, one.n_bytes))
            .filter(|span| span.1 > 0)
            .collect();
        spans.sort_unstable();
        if spans.windows(2).any(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            return Err(PyBufferError::new_err("two outputs share memory"));
        }
        Ok(Self(lent))
    }

    /// The memory of each.
    pub fn slices(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.0.iter_mut().map(|one| {
            if one.n_bytes == 0 {
                return &mut [][..];
            }
            // SAFETY: the exporter keeps that many bytes until the deleter is called, and no two of these slices overlap.
            unsafe { std::slice::from_raw_parts_mut(one.data, one.n_bytes) }
        })
    }
}
