// SPDX-License-Identifier: Apache-2.0
//
// What one side answers, in a form in which both sides can be compared.

import SystemPackage

/// The result of a call.
public struct VerifyOutcome: Sendable, Hashable, CustomStringConvertible {
  /// The system call's result or `-errno`; the value of a load.
  public var result: Int64
  /// 0, or the signal that an access got, with `si_code` and `si_addr`.
  public var signal: Int32 = 0
  public var code: Int32 = 0
  public var faultAddress: UInt64 = 0
  /// What the call wrote to its buffer.
  public var output: [UInt8] = []

  init(result: Int64) { self.result = result }

  init(_ error: Errno) { result = -Int64(error.rawValue) }

  init(signal: Int32, code: Int32, faultAddress: UInt64) {
    (result, self.signal, self.code, self.faultAddress) = (0, signal, code, faultAddress)
  }

  static var success: VerifyOutcome { VerifyOutcome(result: 0) }

  /// Whether the call did what it was asked; of a load the value may be anything.
  func succeeded(_ call: VerifyCall) -> Bool {
    // The break says where it is, which is not where it was to go.
    if call.kind == .brk { return UInt64(bitPattern: result) == call.at }
    return call.isAccess ? signal == 0 : result >= 0
  }

  /// The error's or the signal's name, as coverage lists it.
  func name(_ call: VerifyCall) -> String {
    if call.isAccess {
      switch (signal, code) {
      case (0, _): return "ok"
      case (11, 1): return "SEGV_MAPERR"
      case (11, 2): return "SEGV_ACCERR"
      case (11, 128): return "SI_KERNEL"
      default: return "signal \(signal)/\(code)"
      }
    }
    if result >= 0 { return succeeded(call) ? "ok" : "stays" }
    return switch result {
    case -1: "EPERM"
    case -11: "EAGAIN"
    case -12: "ENOMEM"
    case -14: "EFAULT"
    case -17: "EEXIST"
    case -22: "EINVAL"
    default: "errno \(-result)"
    }
  }

  public var description: String {
    if signal != 0 { return "signal \(signal) code \(code) at \(hex(faultAddress))" }
    if result < 0 && result >= -4095 { return "errno \(-result)" }
    let bytes = output.isEmpty ? "" : ", writes \(output)"
    return hex(UInt64(bitPattern: result)) + bytes
  }
}

/// A mapping, as PROCMAP_QUERY tells it.
public struct VerifyMapping: Sendable, Hashable, CustomStringConvertible {
  public var start: UInt64
  public var end: UInt64
  /// `PROT_*`.
  public var protection: UInt32
  public var isShared: Bool
  /// In bytes; 0 for private anonymous memory, whose offset the kernel does not tell.
  public var offset: UInt64
  /// The number of the file, from 1 on; 0 = none.
  public var file = 0

  public var description: String {
    let rights =
      (protection & 1 != 0 ? "r" : "-") + (protection & 2 != 0 ? "w" : "-")
      + (protection & 4 != 0 ? "x" : "-") + (isShared ? "s" : "p")
      + (file != 0 ? " file \(file)" : "")
    return "\(String(start, radix: 16))-\(String(end, radix: 16)) \(rights) \(hex(offset))"
  }
}

func hex(_ value: UInt64) -> String { "0x" + String(value, radix: 16) }
