// SPDX-License-Identifier: Apache-2.0
//
// Events as bytes, each relative to those before it.
//
// Guarantee: decoding what was encoded gives the same events, whatever their values; decoding
// arbitrary bytes gives events or throws, and allocates no more than the bytes at hand.
// Mechanism: times, addresses and ids are written as differences to a prediction that both sides
// keep in `EventCodingState`; docs/recording-format.md has the layout of each kind.
// Cost: 4-6 bytes a fault, 8-14 a call; constant time. What version 2 added is in `EventCoding+Version2`.

/// The codes in the low six bits of an event's first byte; 1-31 are `CallKind`s.
enum EventCode {
  static let userFault: UInt8 = 48
  static let kernelFault: UInt8 = 49
  static let begin: UInt8 = 50
  static let end: UInt8 = 51
  static let mask: UInt8 = 0x3f
  static let failed: UInt8 = 0x40
  static let otherThread: UInt8 = 0x80
}

/// What both sides know after the same events: the predictions.
struct EventCodingState {
  var time: UInt64 = 0
  var thread = 0
  var threadID: Int32 = 0
  /// The last address of a call: its result or first address.
  var callAddress: UInt64 = 0
  var breakAddress: UInt64 = 0
  /// Per thread, the last fault.
  var faultAddress: [UInt64] = []

  /// `address` relative to `base`. 0 is frequent ("anywhere") and far from everything, so it swaps
  /// codes with "one byte lower", which page-aligned values never are.
  static func code(_ address: UInt64, base: UInt64) -> UInt64 {
    if address == 0 { return 1 }
    let code = zigzag(address &- base)
    return code == 1 ? zigzag(0 &- base) : code
  }

  /// The reverse of `code(_:base:)`.
  static func address(_ code: UInt64, base: UInt64) -> UInt64 {
    if code == 1 { return 0 }
    if code == zigzag(0 &- base) { return base &- 1 }
    return base &+ (code >> 1 ^ (0 &- (code & 1)))
  }

  private static func zigzag(_ difference: UInt64) -> UInt64 {
    let value = Int64(bitPattern: difference)
    return UInt64(bitPattern: (value << 1) ^ (value >> 63))
  }

  /// Where the arguments and the result of a call of this kind are expected.
  func base(_ kind: CallKind) -> UInt64 { kind == .brk ? breakAddress : callAddress }

  mutating func update(after call: RecordedCall) {
    time = call.enter
    let address =
      call.kind.returnsAddress && call.errno == nil
      ? UInt64(bitPattern: call.result) : call.arguments[0]
    switch call.kind {
    case .brk: breakAddress = address
    case .clone, .clone3, .execve, .processMadvise, .mlockall, .munlockall, .userfaultfd, .fork,
      .vfork:
      break
    default: if address != 0 { callAddress = address }
    }
  }
}

extension ByteWriter {
  /// Writes `event`, whose time is not before `state.time`.
  mutating func event(
    _ event: RecordedEvent, state: inout EventCodingState, names: inout [String: Int],
    version: UInt16 = RecordingLayout.version
  ) {
    let elapsed = event.time - state.time
    state.time = event.time
    switch event {
    case .begin(let beginning):
      byte(EventCode.begin)
      varint(elapsed)
      zigzag(Int64(beginning.id) - Int64(state.threadID))
      state.threadID = beginning.id
      varint(beginning.parent.map { UInt64($0) + 1 } ?? 0)
      if let index = names[beginning.name] {
        varint(UInt64(index) + 1)
      } else {
        names[beginning.name] = names.count
        varint(0)
        text(beginning.name)
      }
      state.faultAddress.append(state.callAddress)
    case .end(let thread, _):
      head(EventCode.end, thread, elapsed, &state)
    case .acquisition(let made):
      head(made.eventCode, made.thread, elapsed, &state)
      acquisition(made, version: version)
    case .scheduling(let change):
      head(change.eventCode, change.thread, elapsed, &state)
      scheduling(change)
    case .fault(let fault):
      head(
        fault.fromKernel ? EventCode.kernelFault : EventCode.userFault, fault.thread, elapsed,
        &state)
      varint(EventCodingState.code(fault.address, base: state.faultAddress[fault.thread]))
      varint(UInt64(fault.errorCode))
      state.faultAddress[fault.thread] = fault.address
    case .call(let call):
      let failed = call.errno
      head(
        call.kind.rawValue | (failed == nil ? 0 : EventCode.failed), call.thread, elapsed, &state)
      varint(call.exit - call.enter)
      let base = state.base(call.kind)
      for (index, coding) in call.kind.arguments.enumerated() {
        switch coding {
        case .address: varint(EventCodingState.code(call.arguments[index], base: base))
        case .value: varint(call.arguments[index])
        case .signed: zigzag(Int64(bitPattern: call.arguments[index]))
        }
      }
      if let failed {
        varint(UInt64(failed))
      } else if call.kind.returnsAddress {
        varint(EventCodingState.code(UInt64(bitPattern: call.result), base: base))
      } else {
        zigzag(call.result)
      }
      if call.kind == .mmap { varint(call.file.map { UInt64($0) + 1 } ?? 0) }
      state.update(after: call)
    }
  }

  private mutating func head(
    _ code: UInt8, _ thread: Int, _ elapsed: UInt64, _ state: inout EventCodingState
  ) {
    if thread == state.thread {
      byte(code)
    } else {
      byte(code | EventCode.otherThread)
      zigzag(Int64(thread) - Int64(state.thread))
      state.thread = thread
    }
    varint(elapsed)
  }
}

extension ByteCursor {
  /// Reads one event; what it says is not yet checked against the events before it, except that
  /// its thread has a beginning.
  mutating func event(
    version: UInt16, state: inout EventCodingState, names: inout [String]
  ) throws(Malformed) -> RecordedEvent {
    let first = try byte()
    let code = first & EventCode.mask
    if code == EventCode.begin {
      guard first == code else { throw .corrupted("a beginning with flags \(first & 0xc0)") }
      return try beginning(&state, &names)
    }
    if first & EventCode.otherThread != 0 {
      let (thread, overflow) = Int64(state.thread).addingReportingOverflow(try zigzag())
      guard !overflow, thread >= 0, thread < state.faultAddress.count else {
        throw .impossible("thread \(thread) has no beginning")
      }
      state.thread = Int(thread)
    }
    let thread = state.thread
    guard thread < state.faultAddress.count else {
      throw .impossible("thread \(thread) has no beginning")
    }
    let time = try advance(&state)
    let isFailed = first & EventCode.failed != 0
    switch code {
    case EventCode.end where !isFailed:
      return .end(thread: thread, time: time)
    case EventCode.userFault where !isFailed, EventCode.kernelFault where !isFailed:
      let address = EventCodingState.address(try varint(), base: state.faultAddress[thread])
      state.faultAddress[thread] = address
      let errorCode = try varint(atMost: Int(UInt32.max), "a fault's error code")
      return .fault(
        RecordedFault(
          thread: thread, time: time, address: address, errorCode: UInt32(errorCode),
          fromKernel: code == EventCode.kernelFault))
    case EventCode.ofVersion2 where version >= 2:
      return try eventOfVersion2(
        code, isFailed: isFailed, thread: thread, time: time, threads: state.faultAddress.count,
        version: version)
    default:
      guard let kind = CallKind(rawValue: code) else {
        throw .corrupted("an event of the unknown kind \(code)")
      }
      return .call(try call(kind, thread, time, isFailed, &state))
    }
  }

  private mutating func advance(_ state: inout EventCodingState) throws(Malformed) -> UInt64 {
    let (time, overflow) = state.time.addingReportingOverflow(try varint())
    guard !overflow, time < EventValidator.timeEnd else {
      throw .impossible("a time beyond \(EventValidator.timeEnd) ns")
    }
    state.time = time
    return time
  }

  private mutating func beginning(
    _ state: inout EventCodingState, _ names: inout [String]
  ) throws(Malformed) -> RecordedEvent {
    let time = try advance(&state)
    let (id, overflow) = Int64(state.threadID).addingReportingOverflow(try zigzag())
    guard !overflow, let id = Int32(exactly: id), id >= 0 else {
      throw .impossible("the thread id \(id)")
    }
    state.threadID = id
    let thread = state.faultAddress.count
    let parent = try varint()
    guard parent <= UInt64(thread) else {
      throw .impossible("thread \(thread)'s parent \(parent - 1) has no beginning")
    }
    let nameIndex = try varint(atMost: names.count, "a thread's name")
    if nameIndex == 0 { names.append(try text("a thread's name")) }
    let name = nameIndex == 0 ? names[names.count - 1] : names[nameIndex - 1]
    state.faultAddress.append(state.callAddress)
    return .begin(
      RecordedBeginning(
        thread: thread, time: time, id: id, parent: parent == 0 ? nil : Int(parent) - 1,
        name: name))
  }

  private mutating func call(
    _ kind: CallKind, _ thread: Int, _ time: UInt64, _ isFailed: Bool,
    _ state: inout EventCodingState
  ) throws(Malformed) -> RecordedCall {
    let (exit, overflow) = time.addingReportingOverflow(try varint())
    guard !overflow, exit < EventValidator.timeEnd else {
      throw .impossible("a call that ends beyond \(EventValidator.timeEnd) ns")
    }
    var call = RecordedCall(
      kind: kind, thread: thread, enter: time, exit: exit, arguments: CallArguments(), result: 0)
    let base = state.base(kind)
    for (index, coding) in kind.arguments.enumerated() {
      call.arguments[index] =
        switch coding {
        case .address: EventCodingState.address(try varint(), base: base)
        case .value: try varint()
        case .signed: UInt64(bitPattern: try zigzag())
        }
    }
    if isFailed {
      let errno = try varint(atMost: 4095, "an error number")
      guard errno != 0 else { throw .corrupted("a failed call has the error number 0") }
      call.result = Int64(-errno)
    } else {
      call.result =
        kind.returnsAddress
        ? Int64(bitPattern: EventCodingState.address(try varint(), base: base)) : try zigzag()
      guard call.errno == nil else { throw .corrupted("a successful call returns an error") }
    }
    if kind == .mmap {
      let file = try varint(atMost: Int(Int32.max), "a file number")
      call.file = file == 0 ? nil : file - 1
    }
    state.update(after: call)
    return call
  }
}
