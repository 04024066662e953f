// SPDX-License-Identifier: Apache-2.0
//
// The Linux face: a system call's raw number and arguments in, its raw result out. For emulators, which get
// calls in this form from their guests, and for the verifier.
//
// A call is translated and made through the Swift face, which checks, in Linux's order, whatever has a Swift
// word. Checked here is only what has none: unknown bits, missing types, unaligned offsets.

import SystemPackage

/// The six arguments of a system call, unsigned as registers are. What a call does not use is ignored.
public struct LinuxArguments: Sendable, Hashable {
  /// In `rdi`.
  public var first: UInt64
  /// In `rsi`.
  public var second: UInt64
  /// In `rdx`.
  public var third: UInt64
  /// In `r10`.
  public var fourth: UInt64
  /// In `r8`.
  public var fifth: UInt64
  /// In `r9`.
  public var sixth: UInt64

  /// Arguments in their order; those that a call does not have may be left out.
  public init(
    _ first: UInt64 = 0, _ second: UInt64 = 0, _ third: UInt64 = 0, _ fourth: UInt64 = 0,
    _ fifth: UInt64 = 0, _ sixth: UInt64 = 0
  ) {
    (self.first, self.second, self.third) = (first, second, third)
    (self.fourth, self.fifth, self.sixth) = (fourth, fifth, sixth)
  }
}

extension AddressSpace {
  /// Makes a system call on this space.
  ///
  /// Pointers among the arguments are addresses of the space. **Descriptors are numbers of this process**: an emulator
  /// translates its guest's, or passes -1, for otherwise a guest maps and truncates what the emulator has open. Takes the locks of the operation that the call is.
  ///
  /// - Parameters:
  ///   - number: as on x86-64: `LinuxCall` lists those that are known.
  ///   - arguments: raw, as the kernel gets them.
  ///   - process: the space of the process of a number, for `process_vm_readv` and `process_vm_writev`: a space has no
  ///     number, who runs several knows which is whose. `nil` = there is no such process.
  /// - Returns: what the kernel returns: an address or 0, or the negative of an errno from 1 to 4,095;
  ///   `-ENOSYS` for a call that no address space has.
  public func systemCall(
    _ number: Int, _ arguments: LinuxArguments,
    process: (Int32) -> AddressSpace? = { _ in nil }
  ) -> Int {
    guard let call = LinuxCall(rawValue: number) else { return -Int(Errno.noFunction.rawValue) }
    return systemCall(call, arguments, process: process)
  }

  /// The same, of a call that is known.
  public func systemCall(
    _ call: LinuxCall, _ arguments: LinuxArguments,
    process: (Int32) -> AddressSpace? = { _ in nil }
  ) -> Int {
    do throws(Errno) {
      switch call {
      case .mmap: return Int(bitPattern: UInt(try linuxMap(arguments)))
      case .mremap: return Int(bitPattern: UInt(try linuxRemap(arguments)))
      case .brk: return Int(bitPattern: UInt(setBreak(to: arguments.first)))
      case .munmap: try unmap(at: arguments.first, length: arguments.second)
      case .mprotect: try linuxProtect(arguments)
      case .madvise: try linuxAdvise(arguments)
      case .msync: try linuxSynchronize(arguments)
      case .remapFilePages: try linuxRemapPages(arguments)
      case .ftruncate: try linuxTruncate(arguments)
      case .mincore: try linuxResidency(arguments)
      case .processVMReadv:
        return Int(try linuxTransfer(arguments, isWrite: false, process))
      case .processVMWritev:
        return Int(try linuxTransfer(arguments, isWrite: true, process))
      case .mbind: try linuxBind(arguments)
      case .setMempolicy: try linuxSetPolicy(arguments)
      case .getMempolicy: try linuxGetPolicy(arguments)
      case .prctl: try linuxSetMarkers(arguments)
      case .mlock: try lockMemory(at: arguments.first, length: arguments.second)
      case .mlock2: try linuxLock(arguments)
      case .munlock: try unlockMemory(at: arguments.first, length: arguments.second)
      case .mlockall:
        // An int.
        try lockAllMemory(LockScope(rawValue: UInt32(truncatingIfNeeded: arguments.first)))
      case .munlockall: try unlockAllMemory()
      case .mseal:
        // No flags are defined.
        if arguments.third != 0 { throw .invalidArgument }
        try seal(at: arguments.first, length: arguments.second)
      }
      return 0
    } catch {
      return -Int(error.rawValue)
    }
  }
}
