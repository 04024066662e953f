// SPDX-License-Identifier: Apache-2.0
//
// What the tests of recordings share: seeded randomness, made-up recordings, files of any content.

import Foundation
import Testing

@testable import RangelandReplay

/// SplitMix64; the seed comes from `SEED` if that is set, and is printed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(_ test: String, seed: UInt64 = .random(in: 0 ... .max)) {
    state = ProcessInfo.processInfo.environment["SEED"].flatMap(UInt64.init) ?? seed
    print("\(test): SEED=\(state)")
  }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ word >> 30) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ word >> 27) &* 0x94d0_49bb_1331_11eb
    return word ^ word >> 31
  }

  /// Mostly small, sometimes extreme.
  mutating func anyWord() -> UInt64 {
    switch Int.random(in: 0..<6, using: &self) {
    case 0: 0
    case 1: .max
    case 2: next()
    case 3: 1 << UInt64.random(in: 0..<64, using: &self)
    default: next() >> UInt64.random(in: 0..<64, using: &self)
    }
  }
}

let plainInfo = RecordingInfo(
  program: "program", note: "made by a test", source: "test", layoutOrigin: .recorded,
  eventClasses: [.calls, .userFaults])

func beginning(_ thread: Int, at time: UInt64, parent: Int? = nil) -> RecordedEvent {
  .begin(
    RecordedBeginning(
      thread: thread, time: time, id: Int32(100 + thread), parent: parent, name: "t\(thread % 3)"))
}

func call(
  _ kind: CallKind, _ arguments: CallArguments, thread: Int = 0, at enter: UInt64,
  to exit: UInt64? = nil, result: Int64 = 0, file: Int? = nil
) -> RecordedEvent {
  .call(
    RecordedCall(
      kind: kind, thread: thread, enter: enter, exit: exit ?? enter + 1, arguments: arguments,
      result: result, file: file))
}

func fault(_ address: UInt64, thread: Int = 0, at time: UInt64, code: UInt32 = 6) -> RecordedEvent {
  .fault(
    RecordedFault(
      thread: thread, time: time, address: address, errorCode: code, fromKernel: false))
}

func acquisition(
  thread: Int = 0, at time: UInt64, waited: UInt64 = 1, held: UInt64? = 1, isWrite: Bool = false,
  isGranted: Bool = true, downgradedAfter: UInt64? = nil, chain: Int? = nil
) -> RecordedEvent {
  .acquisition(
    RecordedAcquisition(
      thread: thread, time: time, waited: waited, held: held, isWrite: isWrite,
      isGranted: isGranted, downgradedAfter: downgradedAfter, chain: chain))
}

func scheduling(
  _ change: RecordedScheduling.Change, thread: Int = 0, at time: UInt64
) -> RecordedEvent {
  .scheduling(RecordedScheduling(thread: thread, time: time, change))
}

/// A file with these events, well-formed or not: nothing is checked on the way.
func fileBytes(
  _ events: [RecordedEvent], info: RecordingInfo = plainInfo, files: [String] = [],
  areas: [RecordedArea] = [], chains: CallChains = CallChains(),
  version: UInt16 = RecordingLayout.version,
  totals: RecordingTotals? = nil
) -> [UInt8] {
  var bytes = RecordingLayout.prelude(version: version)
  var number: UInt32 = 0
  func add(_ kind: RecordingLayout.BlockKind, _ items: Int, _ payload: ByteWriter) {
    if items == 0 { return }
    bytes += RecordingLayout.block(
      kind.rawValue, number: number, items: UInt32(items), payload: payload.bytes)
    number += 1
  }
  var payload = ByteWriter()
  payload.info(info, version: version)
  add(.info, 1, payload)
  payload.removeAll()
  for file in files { payload.text(file) }
  add(.files, files.count, payload)
  payload.removeAll()
  var end: UInt64 = 0
  for area in areas {
    payload.area(area, after: end)
    end = area.end
  }
  add(.areas, areas.count, payload)
  payload.removeAll()
  for frame in chains.frames { payload.frame(frame) }
  add(.frames, chains.frames.count, payload)
  payload.removeAll()
  for index in 0..<chains.count { payload.chain(chains.frameNumbers(index)) }
  add(.chains, chains.count, payload)
  payload.removeAll()
  var counted = RecordingTotals()
  counted.files = UInt64(files.count)
  counted.areas = UInt64(areas.count)
  counted.frames = UInt64(chains.frames.count)
  counted.chains = UInt64(chains.count)
  var state = EventCodingState()
  var names: [String: Int] = [:]
  if let first = events.first {
    payload.varint(first.time)
    state.time = first.time
  }
  for event in events {
    if !state.faultAddress.indices.contains(event.thread), case .fault = event {
      // The encoder predicts from the thread's own state; a thread without one is encoded as a call.
      preconditionFailure("encode faults of known threads only")
    }
    payload.event(event, state: &state, names: &names, version: version)
    counted.count(event)
  }
  add(.events, events.count, payload)
  payload.removeAll()
  payload.totals(totals ?? counted, version: version)
  add(.end, 1, payload)
  return bytes
}

/// A valid recording of random calls and faults.
func randomRecording(events count: Int, using random: inout SeededGenerator) throws -> Recording {
  var areas: [RecordedArea] = []
  var end: UInt64 = 4096
  for _ in 0..<Int.random(in: 0..<20, using: &random) {
    let start = end + 4096 * UInt64.random(in: 0..<1000, using: &random)
    end = start + 4096 * UInt64.random(in: 1..<1000, using: &random)
    let backings: [RecordedArea.Backing] = [
      .anonymous, .file(nil, offset: random.anyWord()), .file(1, offset: 4096), .stack, .heap,
      .kernel,
    ]
    areas.append(
      RecordedArea(
        start: start, end: end, protection: Protection(argument: random.next()),
        isShared: Bool.random(using: &random), backing: backings.randomElement(using: &random)!))
  }
  var info = plainInfo
  if Bool.random(using: &random) { info.machine = randomMachine(&random) }
  if Bool.random(using: &random) { info.eventClasses.formUnion([.acquisitions, .callChains]) }
  info.omissions = [.init(name: "é\u{0}x", count: random.anyWord())]
  var recording = try Recording(
    info: info, files: ["a", "", "lib/ü.so"], initialLayout: areas,
    chains: randomChains(&random), name: "random")
  var time: UInt64 = 0
  var busy: [UInt64] = []
  var locked: [UInt64] = []
  var alive: [Int] = []
  for _ in 0..<count {
    time += 1 + random.next() >> UInt64.random(in: 40..<64, using: &random)
    let choice = Int.random(in: 0..<20, using: &random)
    if alive.isEmpty || choice == 0 {
      let thread = busy.count
      try recording.append(
        .begin(
          RecordedBeginning(
            thread: thread, time: time, id: Int32(random.next() >> 33),
            parent: alive.randomElement(using: &random), name: "thread \(random.next() % 5)")))
      busy.append(time)
      locked.append(time)
      alive.append(thread)
      continue
    }
    let slot = Int.random(in: 0..<alive.count, using: &random)
    let thread = alive[slot]
    if choice == 1, busy[thread] <= time {
      try recording.append(.end(thread: thread, time: time))
      alive.remove(at: slot)
    } else if choice < 4, locked[thread] <= time {
      var made = randomAcquisition(thread, time, &random)
      made.chain = (0..<recording.chains.count).randomElement(using: &random)
      try recording.append(.acquisition(made))
      locked[thread] = made.granted + (made.held ?? 0)
    } else if choice < 6 {
      let other = alive.randomElement(using: &random)
      let changes: [RecordedScheduling.Change] = [
        .switchedOut(RecordedScheduling.Reason(rawValue: UInt8(time % 4))!),
        .switchedIn(processor: time % 2 == 0 ? nil : Int(time % 5)),
        .woken(by: time % 2 == 0 ? nil : other),
      ]
      let change = changes.randomElement(using: &random)!
      try recording.append(.scheduling(.init(thread: thread, time: time, change)))
    } else if choice < 12 || busy[thread] > time {
      try recording.append(
        .fault(
          RecordedFault(
            thread: thread, time: time, address: random.anyWord() % RecordedArea.spaceEnd,
            errorCode: UInt32(truncatingIfNeeded: random.anyWord()),
            fromKernel: Bool.random(using: &random))))
    } else {
      let made = randomCall(thread, time, &random)
      try recording.append(.call(made))
      busy[thread] = made.exit
    }
  }
  return recording
}

/// No chains, or some of any length.
private func randomChains(_ random: inout SeededGenerator) -> CallChains {
  var builder = CallChainBuilder()
  for _ in 0..<Int.random(in: 0..<30, using: &random) {
    let frames = (0..<Int.random(in: 1..<40, using: &random)).map { _ in
      let kinds = ["operator()(int) const", "", "ü", "f\(random.next() % 50)"]
      return builder.frame(
        CallChains.Frame(
          function: kinds.randomElement(using: &random)!, module: "m\(random.next() % 3)",
          isKernel: Bool.random(using: &random)))
    }
    _ = builder.chain(frames)
  }
  return builder.chains
}

private func randomAcquisition(
  _ thread: Int, _ time: UInt64, _ random: inout SeededGenerator
) -> RecordedAcquisition {
  var made = RecordedAcquisition(
    thread: thread, time: time, waited: random.next() >> 50, held: nil,
    isWrite: Bool.random(using: &random), isGranted: Int.random(in: 0..<5, using: &random) > 0)
  if made.isGranted {
    if Bool.random(using: &random) { made.held = random.next() >> 50 }
    if made.isWrite, Bool.random(using: &random) {
      made.downgradedAfter = made.held.map { $0 / 2 } ?? random.next() >> 50
    }
  }
  return made
}

private func randomMachine(_ random: inout SeededGenerator) -> RecordedMachine {
  var machine = RecordedMachine(
    processor: "a processor", processors: Bool.random(using: &random) ? 2 : nil,
    memory: [nil, 0, .max - 1].randomElement(using: &random)!, kernel: "6.18")
  machine.addressSpaceLimit = .unlimited
  machine.dataLimit = .bytes([0, 4096, .max - 2].randomElement(using: &random)!)
  machine.overcommit = [nil, 0, 2].randomElement(using: &random)!
  machine.hugePages = "madvise"
  machine.mapCountLimit = [nil, 65530].randomElement(using: &random)!
  return machine
}

private func randomCall(
  _ thread: Int, _ time: UInt64, _ random: inout SeededGenerator
) -> RecordedCall {
  let kind = CallKind.allCases.randomElement(using: &random)!
  var arguments = CallArguments()
  for index in 0..<kind.argumentCount { arguments[index] = random.anyWord() }
  var result = -Int64.random(in: 1...4095, using: &random)
  if Bool.random(using: &random) {
    // A success stays inside the space.
    let start = 4096 + random.next() % (1 << 40)
    for index in 0..<kind.argumentCount {
      switch kind.arguments[index] {
      case .address: arguments[index] = index == 0 ? start : random.anyWord()
      case .value: arguments[index] = 1 + random.next() % (1 << 40)
      case .signed: break
      }
    }
    result = kind.returnsAddress ? Int64(start + 4096) : Int64(random.next() >> 40)
  }
  return RecordedCall(
    kind: kind, thread: thread, enter: time, exit: time + random.next() >> 44,
    arguments: arguments, result: result, file: kind == .mmap ? [nil, 0, 2][Int(time % 3)] : nil)
}

/// A folder that goes away with the value.
final class TemporaryFolder {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "rangeland-\(UUID().uuidString)"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
  }

  var contents: [String] {
    get throws { try FileManager.default.contentsOfDirectory(atPath: path).sorted() }
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}
