// SPDX-License-Identifier: Apache-2.0
//
// A subject that shows another one but for what it does itself.

import Rangeland

protocol ForwardingSubject: VerifySubject {
  /// Whom it shows.
  var forwarded: any VerifySubject { get }
}

extension ForwardingSubject {
  var space: AddressSpace { forwarded.space }

  func transfer(_ call: VerifyCall, with other: any VerifySubject) -> VerifyOutcome {
    forwarded.transfer(call, with: other)
  }

  func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] {
    forwarded.mappings(start, end)
  }

  func presentPages(_ start: UInt64, _ end: UInt64) -> [UInt64] {
    forwarded.presentPages(start, end)
  }

  func presentFilePages(_ start: UInt64, _ end: UInt64) -> Int {
    forwarded.presentFilePages(start, end)
  }

  func hash(_ page: UInt64) -> UInt64? { forwarded.hash(page) }

  func sizes() -> VerifySizes { forwarded.sizes() }

  func fork() -> (any VerifySubject)? { forwarded.fork() }

  func flagNames(_ address: UInt64) -> [String] { forwarded.flagNames(address) }

  func contents(_ file: Int, isWritten: Bool) -> [UInt8] {
    forwarded.contents(file, isWritten: isWritten)
  }

  func fileSize(_ file: Int) -> UInt64 { forwarded.fileSize(file) }
}
