// SPDX-License-Identifier: Apache-2.0
//
// The side that is judged.

import CKernelProtocol
import Glibc
import Rangeland
import SystemPackage

/// What is compared with the kernel: an address space, or one that makes mistakes on purpose.
public protocol VerifySubject: AnyObject {
  func perform(_ call: VerifyCall, at address: UInt64) -> VerifyOutcome
  /// The mappings that share an address with a range, whole, ascending.
  func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping]
  /// The pages of a range that are present, ascending.
  func presentPages(_ start: UInt64, _ end: UInt64) -> [UInt64]
  /// `kp_hash` of a page; `nil` = it may not be read.
  func hash(_ page: UInt64) -> UInt64?
  func sizes() -> VerifySizes
}

/// An address space whose addresses outside the windows are taken, as the helper's are.
public final class SpaceSubject: VerifySubject {
  let space: AddressSpace
  private var baseline = VerifySizes()

  /// - Parameter memory: shared by the spaces of successive scripts.
  public init(
    windows: [KernelProcess.AddressPair], policy: LockPolicy, memory: PhysicalMemory
  ) throws(VerifyError) {
    do throws(Errno) {
      space = try AddressSpace(policy: policy, memory: memory)
      var start: UInt64 = 4096
      for window in windows.sorted(by: { $0.start < $1.start }) {
        try Self.take(space, start, window.start)
        start = window.end
      }
      try Self.take(space, start, Address.spaceEnd)
    } catch {
      throw VerifyError("an address space cannot be made: \(error)")
    }
    baseline = absoluteSizes()
  }

  private static func take(_ space: AddressSpace, _ start: UInt64, _ end: UInt64) throws(Errno) {
    _ = try space.map(length: end - start, at: .fixed(start), protection: [], sharing: .shared)
  }

  public func perform(_ call: VerifyCall, at address: UInt64) -> VerifyOutcome {
    do throws(Errno) {
      switch call.kind {
      case .mmap:
        let at: MapAddress =
          if call.isNoReplace {
            .fixedNoReplace(address)
          } else if call.isFixed {
            .fixed(address)
          } else {
            address == 0 ? .anywhere : .hint(address)
          }
        let result = try space.map(
          length: call.length, at: at,
          protection: Protection(rawValue: UInt32(call.protection)),
          sharing: call.flags & VerifyCall.shared != 0 ? .shared : .private)
        return VerifyOutcome(result: Int64(result))
      case .munmap: try space.unmap(at: address, length: call.length)
      case .mprotect:
        try space.protect(
          at: address, length: call.length, Protection(rawValue: UInt32(call.protection)))
      case .madvise: try space.dontNeed(at: address, length: call.length)
      case .load, .store: return access(call, at: address)
      }
      return .success
    } catch {
      return VerifyOutcome(error)
    }
  }

  private func access(_ call: VerifyCall, at address: UInt64) -> VerifyOutcome {
    do throws(AccessFault) {
      var value: UInt64 = 0
      switch (call.kind, call.length) {
      case (.load, 1): value = UInt64(try space.load(UInt8.self, at: address))
      case (.load, 2): value = UInt64(try space.load(UInt16.self, at: address))
      case (.load, 4): value = UInt64(try space.load(UInt32.self, at: address))
      case (.load, _): value = try space.load(UInt64.self, at: address)
      case (_, 1): try space.store(UInt8(truncatingIfNeeded: call.value), at: address)
      case (_, 2): try space.store(UInt16(truncatingIfNeeded: call.value), at: address)
      case (_, 4): try space.store(UInt32(truncatingIfNeeded: call.value), at: address)
      default: try space.store(call.value, at: address)
      }
      return VerifyOutcome(result: Int64(bitPattern: value))
    } catch {
      let code: Int32 =
        switch error.reason {
        case .notMapped: 1
        case .notPermitted: 2
        case .notCanonical: 128
        case .noPage: 2
        case .outOfMemory: -1
        }
      return VerifyOutcome(
        signal: error.reason == .noPage ? SIGBUS : SIGSEGV, code: code, faultAddress: error.address)
    }
  }

  public func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] {
    var result: [VerifyMapping] = []
    var position = start
    while position < end, let found = space.mapping(atOrAfter: position), found.range.start < end {
      result.append(
        VerifyMapping(
          start: found.range.start, end: found.range.end, protection: found.protection.rawValue,
          isShared: found.sharing == .shared,
          offset: found.sharing == .shared ? found.pageOffset * 4096 : 0))
      position = found.range.end
    }
    return result
  }

  public func presentPages(_ start: UInt64, _ end: UInt64) -> [UInt64] {
    space.presentPages(in: AddressRange(start: start, end: end))
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

  public func sizes() -> VerifySizes {
    var now = absoluteSizes()
    now.virtual -= baseline.virtual
    now.data -= baseline.data
    now.executable -= baseline.executable
    now.residentAnonymous -= baseline.residentAnonymous
    return now
  }

  private func absoluteSizes() -> VerifySizes {
    let usage = space.usage
    return VerifySizes(
      virtual: usage.virtualPages, data: usage.dataPages, executable: usage.executablePages,
      residentAnonymous: usage.residentAnonymousPages)
  }
}
