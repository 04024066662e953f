// SPDX-License-Identifier: Apache-2.0
//
// What the judge has to know about a kind of call: how it is made up, written down, performed on both sides,
// and what a run must have seen of it.

import CKernelProtocol
import Rangeland
import SystemPackage

/// One kind of call. Calls that reach `request`, `reach`, `near`, `perform` and the methods of coverage have
/// absolute addresses (`KernelProcess.resolve`).
protocol CallDefinition: Sendable {
  // MARK: text

  /// What a line of a script has behind address and length, in this order.
  var fields: [CallField] { get }
  /// Whether an address space has words for the call; lines of scripts that it has none for are refused.
  func isKnown(_ call: VerifyCall) -> Bool

  // MARK: made up

  /// How often the kind is among ordinary calls, relative to the other kinds' weights.
  var weight: UInt64 { get }
  /// The same among the calls from arithmetic edges; 0 = it has none.
  var edgeWeight: UInt64 { get }
  /// Whether only every sixth script has calls of the kind, and then often.
  var isForSomeScripts: Bool { get }
  /// The kinds that are made too when a run is restricted to this one.
  var needs: [VerifyCall.Kind] { get }
  func ordinary(_ generator: inout ScriptGenerator, _ subject: any VerifySubject) -> VerifyCall
  func edge(_ generator: inout ScriptGenerator) -> VerifyCall

  // MARK: on the kernel

  func request(_ call: VerifyCall) -> KernelRequest
  /// The ranges that the call changes or touches whatever becomes of it; they have to lie in windows. All
  /// addresses outside are mapped but those below `vm.mmap_min_addr`. `nil` = never to be made.
  func reach(_ call: VerifyCall) -> [KernelProcess.AddressPair]?
  /// Whether the answer is the same whatever other threads do outside of `areas`, one in each window. What the
  /// call reaches lies in them.
  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool
  /// Where mappings are compared after the call. Two places at most.
  func near(_ call: VerifyCall) -> [NearPlace]

  // MARK: on an address space

  /// Whether a call that runs out of memory keeps what it has done before, from the start of its range on, as
  /// Linux does; others change nothing then.
  var keepsWhatItDid: Bool { get }
  /// Whether both sides are to answer the same, as far as that depends on what is mapped: a call for which a
  /// space departs from the kernel otherwise is not made. Addresses are absolute.
  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool
  /// Whatever threads do with the space at the same time.
  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome

  // MARK: coverage

  /// The call's name in the table of coverage.
  func coverageName(_ call: VerifyCall) -> String
  /// The pages that the call works on, if it names them: what they held before is told apart.
  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair?
  /// The pages that a call that succeeded has made or changed: whether they are one mapping with neighbours
  /// is told apart.
  func changedRange(_ call: VerifyCall, _ outcome: VerifyOutcome) -> KernelProcess.AddressPair?
  /// Hits that a run of `Coverage.judgedFrom` operations must have.
  var required: [Coverage.Requirement] { get }
}

extension CallDefinition {
  var needs: [VerifyCall.Kind] { [.mmap] }

  func isDetermined(
    _ call: VerifyCall, _ areas: [KernelProcess.AddressPair], _ subject: any VerifySubject
  ) -> Bool { true }

  func near(_ call: VerifyCall) -> [NearPlace] {
    [NearPlace(address: call.at, length: call.length)]
  }

  func shapedRange(_ call: VerifyCall) -> KernelProcess.AddressPair? { call.pages }

  func changedRange(
    _ call: VerifyCall, _ outcome: VerifyOutcome
  ) -> KernelProcess.AddressPair? { nil }

  var keepsWhatItDid: Bool { false }

  var isForSomeScripts: Bool { false }

  func isComparable(_ call: VerifyCall, _ subject: any VerifySubject) -> Bool { true }

  func coverageName(_ call: VerifyCall) -> String { call.kind.rawValue }

  /// The same system call, with the same raw arguments, through the Linux face.
  func perform(_ call: VerifyCall, on space: AddressSpace) -> VerifyOutcome {
    let request = request(call)
    precondition(
      request.bufferArgument < 0, "\(call.kind): a buffer of the helper means nothing here")
    let a = request.arguments
    return VerifyOutcome(
      result: Int64(
        space.systemCall(request.number, LinuxArguments(a[0], a[1], a[2], a[3], a[4], a[5]))))
  }
}

/// A system call, or an access, as the helper process performs it.
struct KernelRequest {
  /// `KP_SYSCALL`, `KP_LOAD` or `KP_STORE`.
  var operation = KP_SYSCALL
  /// Of the system call.
  var number = 0
  var arguments: [6 of UInt64] = [0, 0, 0, 0, 0, 0]
  /// The argument that is replaced by the address of a buffer of the helper; -1 = none.
  var bufferArgument: Int32 = -1
  /// What the buffer holds before the call.
  var buffer: [UInt8] = []
  /// Bytes of the buffer that are compared after the call when it succeeded.
  var comparedBytes = 0

  init(_ number: Int, _ arguments: UInt64...) {
    self.number = number
    for i in arguments.indices { self.arguments[i] = arguments[i] }
  }

  init(operation: Int, _ arguments: UInt64...) {
    self.operation = operation
    for i in arguments.indices { self.arguments[i] = arguments[i] }
  }
}

/// A place where mappings are listed after a call.
struct NearPlace {
  /// Ignored when the call succeeds and `followsResult`: then its result is the address.
  var address: UInt64
  var length: UInt64
  var followsResult = false
}

/// A field of a call in the text of a script.
struct CallField: Sendable {
  enum Content: Sendable {
    case number(WritableKeyPath<VerifyCall, UInt64> & Sendable, isHex: Bool)
    case address(WritableKeyPath<VerifyCall, VerifyAddress> & Sendable)
  }

  var name: String
  var content: Content

  init(_ name: String, _ path: WritableKeyPath<VerifyCall, UInt64> & Sendable, isHex: Bool = true) {
    (self.name, content) = (name, .number(path, isHex: isHex))
  }

  init(_ name: String, _ path: WritableKeyPath<VerifyCall, VerifyAddress> & Sendable) {
    (self.name, content) = (name, .address(path))
  }
}

extension VerifyCall {
  /// The address as a number, once it is resolved.
  var at: UInt64 {
    get { address.offset }
    set { address = VerifyAddress(nil, newValue) }
  }

  /// The pages from the address on, up to the end of the space at most; `nil` when it is not aligned, or
  /// there are none.
  var pages: KernelProcess.AddressPair? {
    guard at % 4096 == 0, at < Address.spaceEnd, length != 0, length <= Address.spaceEnd - at else {
      return nil
    }
    return KernelProcess.AddressPair(start: at, end: at + (length + 4095) / 4096 * 4096)
  }

  /// Whether such a mapping is in the call's range.
  func meets(_ subject: any VerifySubject, where condition: (VerifyMapping) -> Bool) -> Bool {
    let end = at.addingReportingOverflow(length)
    return subject.mappings(at, end.overflow ? Address.spaceEnd : end.partialValue).contains(
      where: condition)
  }

  /// Whether shared memory that is no file is mapped in the call's range.
  func meetsSharedMemory(_ subject: any VerifySubject) -> Bool {
    let end = at.addingReportingOverflow(length)
    return subject.mappings(at, end.overflow ? Address.spaceEnd : end.partialValue).contains {
      $0.isShared && $0.file == 0
    }
  }

  /// The length rounded up to pages; `nil` when that wraps.
  var roundedLength: UInt64? {
    let (sum, overflow) = length.addingReportingOverflow(4095)
    return overflow ? nil : sum & ~4095
  }
}

/// Runs a call that has no result but success.
func outcome(_ body: () throws(Errno) -> Void) -> VerifyOutcome {
  do throws(Errno) {
    try body()
    return .success
  } catch {
    return VerifyOutcome(error)
  }
}
