// SPDX-License-Identifier: Apache-2.0
//
// What a replay has to have before its first step: files as long as what is mapped of them, a heap where the program's
// was, and the mappings at the start.

import Rangeland

struct ReplaySurroundings {
  /// By number; the last is that of all files without a name.
  private(set) var fileSizes: [UInt64]
  /// Where the heap begins, and the break at the start; nil where the recording does not tell.
  private(set) var heap: (start: UInt64, end: UInt64)?

  private var nameless: Int { fileSizes.count - 1 }

  init(_ recording: Recording) {
    fileSizes = Array(repeating: 0, count: recording.files.count + 1)
    findHeap(recording)
    for area in recording.initialLayout {
      guard case .file(let number, let offset) = area.backing else { continue }
      see(number, offset, area.end - area.start)
    }
    for call in recording.calls where call.kind == .mmap && call.errno == nil {
      guard call.arguments[3] & LinuxFlag.mapAnonymous == 0 else { continue }
      see(call.file, call.arguments[5], call.arguments[1])
    }
    for call in recording.calls where call.errno != nil && call.asksForSynchronousFile {
      see(nil, call.arguments[5], call.arguments[1])
    }
    // A mapping that grows shows more of its file.
    let growth = recording.calls.reduce(UInt64(0)) { most, call in
      guard call.kind == .mremap && call.errno == nil else { return most }
      return max(most, min(call.arguments[2], ReplayFiles.sizeLimit))
    }
    for index in fileSizes.indices where fileSizes[index] > 0 {
      fileSizes[index] = min(fileSizes[index] + (growth + 4095) & ~4095, ReplayFiles.sizeLimit)
    }
  }

  private mutating func see(_ number: Int?, _ offset: UInt64, _ length: UInt64) {
    guard Self.canMap(offset, length) else { return }
    let index = number ?? nameless
    fileSizes[index] = max(fileSizes[index], offset + (length + 4095) & ~4095)
  }

  private static func canMap(_ offset: UInt64, _ length: UInt64) -> Bool {
    offset % 4096 == 0 && offset < ReplayFiles.sizeLimit && length < ReplayFiles.sizeLimit - offset
  }

  /// The first answer to `brk` tells the break, and so the heap's start if there is no heap yet.
  private mutating func findHeap(_ recording: Recording) {
    let area = recording.initialLayout.last { $0.backing == .heap }
    let first = recording.calls.filter { $0.kind == .brk }
      .min { ($0.effectTime, $0.thread) < ($1.effectTime, $1.thread) }
    let told = first.flatMap { $0.arguments[0] == 0 ? UInt64(bitPattern: $0.result) : nil }
      .flatMap { $0 < RecordedArea.spaceEnd ? $0 : nil }
    if let area {
      let end = told.flatMap { $0 > area.start && ($0 + 4095) & ~4095 == area.end ? $0 : nil }
      heap = (area.start, end ?? area.end)
    } else if let told, told >= 1 << 16 {
      heap = (told, told)
    }
  }

  /// The file that stands for a recorded one, and whether so much of it can be mapped.
  func file(_ number: Int?, _ offset: UInt64, _ length: UInt64) -> Int32? {
    Self.canMap(offset, length) ? Int32(number ?? nameless) : nil
  }

  /// How long the file that stands for a recorded one is, in bytes.
  func size(_ number: Int?) -> UInt64 { fileSizes[number ?? nameless] }

  /// How a mapping that was there at the start is made.
  func mapping(at area: RecordedArea) -> Translation {
    let place = area.start..<area.end
    let protection = UInt64(area.protection.rawValue)
    func call(_ flags: UInt64, _ file: Int32, _ offset: UInt64) -> Translation {
      Translation(
        ReplayCall(
          .mmap,
          LinuxArguments(
            area.start, area.end - area.start, protection, flags | LinuxFlag.mapFixedNoReplace,
            .max, offset), file: file, result: area.start), place, .map(area))
    }
    let sharing: UInt64 = area.isShared ? 1 : 2
    switch area.backing {
    case .anonymous: return call(sharing | LinuxFlag.mapAnonymous, -1, 0)
    case .stack:
      return call(
        2 | LinuxFlag.mapAnonymous | LinuxFlag.mapGrowsDown | LinuxFlag.mapStack, -1, 0)
    case .file(let number, let offset):
      if let file = file(number, offset, area.end - area.start) {
        return call(sharing, file, offset)
      }
      return Translation(
        [ReplayStep(.substituteMapping, area)], .map(area),
        substituted: "mapping at the start, far inside a file")
    case .heap:
      // Made by the break, unless this is another one.
      if let heap, heap.start == area.start { return Translation([], .map(area)) }
      return call(sharing | LinuxFlag.mapAnonymous, -1, 0)
    case .kernel:
      return Translation([ReplayStep(.insertSpecial, area)], .map(area))
    }
  }
}
