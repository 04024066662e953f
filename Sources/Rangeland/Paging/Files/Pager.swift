// SPDX-License-Identifier: Apache-2.0
//
// Where a user's pages come from and go to.

import SystemPackage

/// Supplies the contents of a `FileObject` that no file of the operating system stands behind: pages that come from a
/// network, are decompressed, or computed.
///
/// A pager is called on the thread that needs the page, or on the one that writes back, from several threads at
/// once, and under no lock of any space: it may be slow, and may use spaces.
///
/// It must not need pages of the object that it supplies, write them back, or change its size: it would wait for itself, and
/// traps. Errors that it throws are errno from 1 to 4,095; others count as `EIO`.
public protocol Pager: AnyObject, Sendable {
  /// Fills a page, given zeroed. Nobody else sees the bytes before it returns.
  ///
  /// - Parameters:
  ///   - page: counts from the start of the object.
  ///   - bytes: 4,096, all zero.
  /// - Throws: what is wrong with this page: the access that needs it is a bus error, and nothing else happens. The
  ///   next access asks again. `ENOMEM`: clean pages of files are let go, and it is asked again, if there are any.
  func fill(page: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(Errno)

  /// Keeps what was written to a page.
  ///
  /// - Parameters:
  ///   - page: counts from the start of the object.
  ///   - bytes: a copy that nobody changes; of the last page those before the object's end.
  /// - Throws: the page stays dirty, and the error is reported once to everybody who maps the object
  ///   (`AddressSpace.synchronize`) or has a handle of it.
  func writeBack(page: UInt64, from bytes: UnsafeRawBufferPointer) throws(Errno)

  /// Makes durable what `writeBack` was given so far. Nothing, by default.
  func synchronize() throws(Errno)

  /// The object has another size. Nothing, by default. An error refuses the change.
  func resize(to size: UInt64) throws(Errno)

  /// The contents of a range are to be zeros. By default it is written as pages of zeros when these are written back.
  func discard(_ range: Range<UInt64>) throws(Errno)

  /// Pages that are asked for beside the one that is needed: the pages of the same aligned group of so many that are
  /// not in memory. 1 (the default) to 16. Asked once, when the object is made.
  var readAhead: Int { get }
}

extension Pager {
  public func synchronize() throws(Errno) {}
  public func resize(to size: UInt64) throws(Errno) {}
  public func discard(_ range: Range<UInt64>) throws(Errno) { throw .notSupported }
  public var readAhead: Int { 1 }
}
