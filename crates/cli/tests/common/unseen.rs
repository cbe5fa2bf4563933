//! System calls that no library sees: the instruction itself, in the program.

#![allow(dead_code, reason = "each test program uses its part")]

use std::arch::asm;
use std::ffi::{c_int, c_long};

/// Makes a system call. Returns what it returns, or its errno.
///
/// # Safety
/// As for the call of this number.
#[cfg(target_arch = "x86_64")]
pub(crate) unsafe fn call(number: c_long, arguments: [usize; 6]) -> Result<isize, i32> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result: isize;
    // SAFETY: by the caller's promise; the kernel changes the registers that are named, and no others.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") first, in("rsi") second, in("rdx") third,
            in("r10") fourth, in("r8") fifth, in("r9") sixth,
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    checked(result)
}

/// As above.
///
/// # Safety
/// As for the call of this number.
#[cfg(target_arch = "aarch64")]
pub(crate) unsafe fn call(number: c_long, arguments: [usize; 6]) -> Result<isize, i32> {
    let [first, second, third, fourth, fifth, sixth] = arguments;
    let result: isize;
    // SAFETY: by the caller's promise; the kernel changes the register that is named, and no others.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number as isize,
            inlateout("x0") first as isize => result,
            in("x1") second, in("x2") third, in("x3") fourth, in("x4") fifth, in("x5") sixth,
            options(nostack),
        );
    }
    checked(result)
}

/// An argument that is an `int`.
pub(crate) fn int(number: c_int) -> usize {
    (number as isize).cast_unsigned()
}

/// The kernel returns the negative errno of a call that has failed.
fn checked(result: isize) -> Result<isize, i32> {
    if (-4095..0).contains(&result) { Err(-result as i32) } else { Ok(result) }
}
