// SPDX-License-Identifier: Apache-2.0
//
// A correct address space, to be seen through a mistake: subclasses override what they spoil.

import Rangeland

class MistakenSubject: ForwardingSubject {
  let inner: SpaceSubject
  var forwarded: any VerifySubject { inner }
  /// Pages that were written to since they were mapped.
  private(set) var written: Set<UInt64> = []
  /// Pages that were only read.
  private(set) var loaded: Set<UInt64> = []

  init(_ inner: SpaceSubject) { self.inner = inner }

  func pages(_ start: UInt64, _ length: UInt64) -> StrideTo<UInt64> {
    // Calls that succeed stay in a window.
    stride(from: start, to: start &+ min(length, 64 << 20), by: 4096)
  }

  /// Whether a call could be one in a window.
  func isOrdinary(_ call: VerifyCall) -> Bool {
    call.at < 1 << 47 && call.length < 1 << 30 && call.length > 0
  }

  func rights(_ address: UInt64) -> UInt32? {
    inner.mappings(address, address &+ 1).first.map(\.protection)
  }

  /// The call as the space makes it, and what is to be remembered of it.
  func perform(_ call: VerifyCall) -> VerifyOutcome {
    let outcome = inner.perform(call)
    guard outcome.succeeded(call) else { return outcome }
    let page = call.at & ~4095
    switch call.kind {
    case .store:
      written.insert(page)
      loaded.remove(page)
    case .load: if !written.contains(page) { loaded.insert(page) }
    case .mmap: forget(UInt64(outcome.result), call.length)
    case .munmap: forget(call.at, call.length)
    default: break
    }
    return outcome
  }

  func transfer(_ call: VerifyCall, with other: any VerifySubject) -> VerifyOutcome {
    inner.transfer(call, with: other)
  }

  /// What was in a range is gone.
  func forget(_ start: UInt64, _ length: UInt64) {
    for page in pages(start, length) {
      written.remove(page)
      loaded.remove(page)
    }
  }

  func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] { inner.mappings(start, end) }

  func presentPages(_ start: UInt64, _ end: UInt64) -> [UInt64] { inner.presentPages(start, end) }

  func hash(_ page: UInt64) -> UInt64? { inner.hash(page) }

  func sizes() -> VerifySizes { inner.sizes() }

  func flagNames(_ address: UInt64) -> [String] { inner.flagNames(address) }

  /// The child makes no mistakes.
  func fork() -> (any VerifySubject)? { inner.fork() }

  func contents(_ file: Int, isWritten: Bool) -> [UInt8] {
    inner.contents(file, isWritten: isWritten)
  }
}
