// SPDX-License-Identifier: Apache-2.0
//
// The events that version 2 added, as bytes: acquisitions of `mmap_lock` and what the scheduler did. Version 3 added
// the call chain of an acquisition.
//
// Cost: 7-11 bytes an acquisition, 4-6 a change of the scheduler's.

extension EventCode {
  static let readAcquisition: UInt8 = 52
  static let writeAcquisition: UInt8 = 53
  static let switchedOut: UInt8 = 54
  static let switchedIn: UInt8 = 55
  static let woken: UInt8 = 56
  static let ofVersion2: ClosedRange<UInt8> = readAcquisition...woken
}

extension RecordedAcquisition {
  /// The event's first byte, without the bit for another thread.
  var eventCode: UInt8 {
    (isWrite ? EventCode.writeAcquisition : EventCode.readAcquisition)
      | (isGranted ? 0 : EventCode.failed)
  }
}

extension RecordedScheduling {
  /// The event's first byte, without the bit for another thread.
  var eventCode: UInt8 {
    switch change {
    case .switchedOut: EventCode.switchedOut
    case .switchedIn: EventCode.switchedIn
    case .woken: EventCode.woken
    }
  }
}

extension ByteWriter {
  /// What follows the head of an acquisition.
  mutating func acquisition(_ acquisition: RecordedAcquisition, version: UInt16) {
    varint(acquisition.waited)
    if acquisition.isGranted {
      varint(acquisition.held.map { $0 + 1 } ?? 0)
      if acquisition.isWrite { varint(acquisition.downgradedAfter.map { $0 + 1 } ?? 0) }
    }
    if version >= 3 { varint(acquisition.chain.map { UInt64($0) + 1 } ?? 0) }
  }

  /// What follows the head of a change of the scheduler's.
  mutating func scheduling(_ scheduling: RecordedScheduling) {
    switch scheduling.change {
    case .switchedOut(let reason): byte(reason.rawValue)
    case .switchedIn(let number), .woken(let number): varint(number.map { UInt64($0) + 1 } ?? 0)
    }
  }
}

extension ByteCursor {
  /// Reads what follows the head of an event that version 2 added.
  mutating func eventOfVersion2(
    _ code: UInt8, isFailed: Bool, thread: Int, time: UInt64, threads: Int, version: UInt16
  ) throws(Malformed) -> RecordedEvent {
    switch code {
    case EventCode.readAcquisition, EventCode.writeAcquisition:
      let isWrite = code == EventCode.writeAcquisition
      let waited = try duration("a wait")
      var acquisition = RecordedAcquisition(
        thread: thread, time: time, waited: waited, held: nil, isWrite: isWrite,
        isGranted: !isFailed)
      if !isFailed {
        acquisition.held = try optionalDuration("a hold")
        if isWrite { acquisition.downgradedAfter = try optionalDuration("a hold") }
      }
      if version >= 3 {
        let chain = try varint(atMost: Int(UInt32.max) - 1, "a call chain")
        if chain > 0 { acquisition.chain = chain - 1 }
      }
      return .acquisition(acquisition)
    case EventCode.switchedOut where !isFailed:
      let word = try byte()
      guard let reason = RecordedScheduling.Reason(rawValue: word) else {
        throw .corrupted("a thread left its processor for the unknown reason \(word)")
      }
      return .scheduling(.init(thread: thread, time: time, .switchedOut(reason)))
    case EventCode.switchedIn where !isFailed:
      let processor = try varint(atMost: Int(Int32.max), "a processor")
      return .scheduling(
        .init(
          thread: thread, time: time,
          .switchedIn(processor: processor == 0 ? nil : processor - 1)))
    case EventCode.woken where !isFailed:
      let waker = try varint()
      guard waker <= UInt64(threads) else {
        throw .impossible("thread \(waker - 1), which wakes thread \(thread), has no beginning")
      }
      return .scheduling(
        .init(thread: thread, time: time, .woken(by: waker == 0 ? nil : Int(waker) - 1)))
    default: throw .corrupted("an event of the unknown kind \(code)")
    }
  }

  private mutating func duration(_ what: String) throws(Malformed) -> UInt64 {
    let value = try varint()
    guard value < EventValidator.timeEnd else { throw .impossible("\(what) of \(value) ns") }
    return value
  }

  private mutating func optionalDuration(_ what: String) throws(Malformed) -> UInt64? {
    let value = try duration(what)
    return value == 0 ? nil : value - 1
  }
}
