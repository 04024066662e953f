// SPDX-License-Identifier: Apache-2.0
//
// The side that is judged.

import CKernelProtocol
import Glibc
import Rangeland
import SystemPackage

/// What is compared with the kernel: an address space, or one that makes mistakes on purpose.
public protocol VerifySubject: AnyObject {
  /// - Parameter call: with absolute addresses.
  func perform(_ call: VerifyCall) -> VerifyOutcome
  /// A copy between this space and another of the same script.
  func transfer(_ call: VerifyCall, with other: any VerifySubject) -> VerifyOutcome
  /// What is judged.
  var space: AddressSpace { get }
  /// The mappings that share an address with a range, whole, ascending.
  func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping]
  /// The pages of a range that are present, ascending.
  func presentPages(_ start: UInt64, _ end: UInt64) -> [UInt64]
  /// `kp_hash` of a page; `nil` = it may not be read.
  func hash(_ page: UInt64) -> UInt64?
  func sizes() -> VerifySizes
  /// Pages of files on disks in a range that are present, copies aside.
  func presentFilePages(_ start: UInt64, _ end: UInt64) -> Int
  /// A copy; `nil` without memory.
  func fork() -> (any VerifySubject)?
  /// The attributes of the mapping at an address by Linux's two letters; none if there is no mapping.
  func flagNames(_ address: UInt64) -> [String]
  /// What mappings show of a file; empty when there are none. With `isWritten` what the operating system has of it, once
  /// nothing is mapped any more.
  func contents(_ file: Int, isWritten: Bool) -> [UInt8]
  /// In bytes.
  func fileSize(_ file: Int) -> UInt64
}

extension VerifySubject {
  /// Pages of locked mappings in a range.
  func lockedPages(_ range: KernelProcess.AddressPair) -> UInt64 {
    mappings(range.start, range.end).reduce(0) { sum, mapping in
      if !flagNames(mapping.start).contains("lo") { return sum }
      return sum + (min(range.end, mapping.end) - max(range.start, mapping.start)) / 4096
    }
  }
}

/// An address space whose addresses outside the windows are taken, as the helper's are.
public final class SpaceSubject: VerifySubject {
  public let space: AddressSpace
  private var baseline = VerifySizes()
  private let files: VerifyFiles?

  /// - Parameters:
  ///   - memory: shared by the spaces of successive scripts.
  ///   - heapBefore: bytes of the heap below its window.
  public convenience init(
    windows: [KernelProcess.AddressPair], policy: LockPolicy, memory: PhysicalMemory,
    heapBefore: UInt64 = 0
  ) throws(VerifyError) {
    try self.init(
      windows: windows, policy: policy, memory: memory, heapBefore: heapBefore, files: nil)
  }

  /// - Parameter files: those of the scripts; `nil` = their descriptors are none.
  init(
    windows: [KernelProcess.AddressPair], policy: LockPolicy, memory: PhysicalMemory,
    heapBefore: UInt64, files: VerifyFiles?
  ) throws(VerifyError) {
    self.files = files
    if let files, files.needsReset {
      try VerifyFiles.reset(files.subject)
      files.needsReset = false
    }
    do throws(Errno) {
      space = try AddressSpace(policy: policy, memory: memory)
      if windows.count > VerifyWindow.heap.rawValue {
        // The heap begins below its window, where other things stand then.
        let start = windows[VerifyWindow.heap.rawValue].start
        space.heapStart = start - heapBefore
        space.setBreak(to: start)
      }
      var start: UInt64 = 4096
      for window in windows.sorted(by: { $0.start < $1.start }) {
        try Self.take(space, start, window.start)
        start = window.end
      }
      try Self.take(space, start, Address.spaceEnd)
      // The helper has inherited this process's.
      space.limits.stack = LimitCall.highest(LimitCall.stack)
      let locks = LimitCall.highest(LimitCall.lockedMemory)
      space.limits.lockedMemory = locks == .max ? nil : locks
    } catch {
      throw VerifyError("an address space cannot be made: \(error)")
    }
    baseline = absoluteSizes()
  }

  private init(child: AddressSpace, baseline: VerifySizes, files: VerifyFiles?) {
    space = child
    self.files = files
    self.baseline = baseline
    self.baseline.locked = 0
  }

  public func fork() -> (any VerifySubject)? { copy() }

  func copy() -> SpaceSubject? {
    (try? space.fork()).map { SpaceSubject(child: $0, baseline: baseline, files: files) }
  }

  private static func take(_ space: AddressSpace, _ start: UInt64, _ end: UInt64) throws(Errno) {
    _ = try space.map(length: end - start, at: .fixed(start), protection: [], sharing: .shared)
  }

  public func perform(_ call: VerifyCall) -> VerifyOutcome {
    var call = call.rebased(baseline)
    if let files { call = call.with(files.subject) }
    return call.kind.definition.perform(call, on: space)
  }

  public func transfer(_ call: VerifyCall, with other: any VerifySubject) -> VerifyOutcome {
    TransferCall(isWrite: call.kind == .processWrite).perform(call, on: space, with: other.space)
  }

  public func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] {
    var result: [VerifyMapping] = []
    var position = start
    while position < end, let found = space.mapping(atOrAfter: position), found.range.start < end {
      result.append(
        VerifyMapping(
          start: found.range.start, end: found.range.end, protection: found.protection.rawValue,
          isShared: found.sharing == .shared,
          offset: found.sharing == .shared || found.file != nil ? found.pageOffset * 4096 : 0,
          file: found.file.flatMap { files?.subject.number($0) } ?? 0))
      position = found.range.end
    }
    return result
  }

  public func presentPages(_ start: UInt64, _ end: UInt64) -> [UInt64] {
    space.presentPages(in: AddressRange(start: start, end: end))
  }

  public func presentFilePages(_ start: UInt64, _ end: UInt64) -> Int {
    space.residentFilePages(in: AddressRange(start: start, end: end))
  }

  public func hash(_ page: UInt64) -> UInt64? {
    withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
      do throws(AccessFault) {
        try space.read(at: page, into: buffer)
        return kp_hash(buffer.baseAddress!)
      } catch {
        return nil
      }
    }
  }

  public func contents(_ file: Int, isWritten: Bool) -> [UInt8] {
    guard let files else { return [] }
    if isWritten {
      space.memory.writeBackAll()
      return VerifyFiles.contents(files.subject, file)
    }
    do throws(Errno) {
      let object = try FileObject(
        descriptor: FileDescriptor(rawValue: files.subject.own[file]), memory: space.memory)
      var bytes = [UInt8](repeating: 0, count: Int(object.size))
      var failure: Errno?
      bytes.withUnsafeMutableBytes {
        do throws(Errno) { _ = try object.read(at: 0, into: $0) } catch { failure = error }
      }
      if let failure { throw failure }
      return bytes
    } catch {
      return Array("\(error)".utf8)
    }
  }

  /// The kernel's, which is the same, or there would be a difference.
  public func fileSize(_ file: Int) -> UInt64 {
    files.map { VerifyFiles.size($0.kernel, file) } ?? 0
  }

  /// Writes a byte to a file, for a mistake.
  func spoil(_ file: Int, _ offset: Int, _ byte: UInt8) {
    guard let files,
      let object = try? FileObject(
        descriptor: FileDescriptor(rawValue: files.subject.own[file]), memory: space.memory)
    else { return }
    withUnsafeBytes(of: byte) { _ = try? object.write($0, at: UInt64(offset)) }
  }

  public func sizes() -> VerifySizes {
    (absoluteSizes() - baseline).withoutLocks(outside: baseline.virtual)
  }

  public func flagNames(_ address: UInt64) -> [String] {
    space.mapping(at: address)?.flagNames ?? []
  }

  private func absoluteSizes() -> VerifySizes {
    let usage = space.usage
    return VerifySizes(
      virtual: usage.virtualPages, data: usage.dataPages, executable: usage.executablePages,
      stack: usage.stackPages, locked: usage.lockedPages,
      residentAnonymous: usage.residentAnonymousPages, residentShared: usage.residentSharedPages,
      residentFile: usage.residentFilePages,
      mappings: usage.mappings)
  }
}
