// SPDX-License-Identifier: Apache-2.0
//
// What a space could get wrong about files.

import Rangeland

enum FileMistake: String, MistakeFamily {
  /// A store to a page that was read before does not reach the file: no write-notify.
  case noWriteNotify
  /// A store to a page that msync has gone over does not reach the file: its dirty bit is lost.
  case dirtyBitLost
  /// A page behind the new end of a file can still be read.
  case stalePageAfterTruncation
  /// Private copies stay behind the new end of a file.
  case copySurvivesTruncation
  /// The upper piece of a split has the offset of the lower one.
  case offsetAfterSplit
  /// Mappings merge whatever their offsets are.
  case mergesAcrossOffsets
  /// The page behind the last one of a file is no bus error.
  case endIsOffByOne
  /// A store to a private mapping reaches the file.
  case privateReachesFile
  /// Truncation does not change the file.
  case truncationIsLost
  /// A hole keeps its contents.
  case holeKeepsContents
  /// A file that may only be read can be mapped for shared writing.
  case accessModeIgnored
  /// msync of a range with a hole is no error.
  case syncSkipsHole
  /// A copy of a page counts as a page of the file still.
  case copyStaysCounted

  static var kinds: [VerifyCall.Kind] {
    VerifyCall.Kind.ofFiles + [.mmap, .munmap, .load, .store, .mprotect, .madvise]
  }

  func make(_ inner: SpaceSubject) -> any VerifySubject { MistakenFile(self, inner) }
}

private final class MistakenFile: MistakenSubject {
  private let mistake: FileMistake
  /// Pages of files, and what they held when a store to them began to be lost.
  private var lost: [Place: [UInt8]] = [:]
  /// Pages that were read, and pages that msync has gone over.
  private var known: Set<Place> = []
  private var cleaned: Set<Place> = []
  private var oldSizes: [Int: Int] = [:]
  /// Copies of pages that were there before.
  private var copies = 0

  private struct Place: Hashable {
    var file: Int
    var page: UInt64
  }

  init(_ mistake: FileMistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    super.init(inner)
  }

  /// Where in a file an address of a mapping is.
  private func place(_ address: UInt64) -> (Place, isShared: Bool)? {
    guard let mapping = inner.mappings(address, address &+ 1).first, mapping.file != 0 else {
      return nil
    }
    let offset = mapping.offset + (address - mapping.start)
    return (Place(file: mapping.file - 1, page: offset / 4096), mapping.isShared)
  }

  override func perform(_ call: VerifyCall) -> VerifyOutcome {
    switch call.kind {
    case .load, .store: return access(call)
    case .msync: return synchronize(call)
    case .truncate: return truncate(call)
    case .madvise where mistake == .holeKeepsContents && call.flags == 9 && call.at % 4096 == 0:
      var other = call
      other.flags = 3
      let result = super.perform(call.at < 1 << 47 && inner.mapsShared(call) ? other : call)
      return result
    case .mapFile where mistake == .accessModeIgnored && call.descriptor == 4:
      var other = call
      other.descriptor = 3
      return super.perform(other)
    default: return super.perform(call)
    }
  }

  private func access(_ call: VerifyCall) -> VerifyOutcome {
    guard call.at < 1 << 47, let (place, isShared) = place(call.at) else {
      return super.perform(call)
    }
    let pages = (inner.fileSize(place.file) + 4095) / 4096
    switch mistake {
    case .noWriteNotify:
      if call.kind == .store, isShared, known.contains(place), place.page < pages { lose(place) }
      if call.kind == .load { known.insert(place) }
    case .dirtyBitLost where call.kind == .store && isShared && place.page < pages:
      if cleaned.contains(place) { lose(place) }
    case .privateReachesFile where call.kind == .store && !isShared && rights(call.at)! & 2 != 0:
      inner.spoil(place.file, Int(place.page) * 4096, UInt8(truncatingIfNeeded: call.value))
    case .copyStaysCounted where call.kind == .store && !isShared:
      let page = call.at & ~4095
      let before = inner.presentFilePages(page, page + 4096)
      let result = super.perform(call)
      copies += before - inner.presentFilePages(page, page + 4096)
      return result
    default: break
    }
    var result = super.perform(call)
    guard result.signal == 7, call.kind == .load else { return result }
    let behind = place.page >= pages
    switch mistake {
    case .endIsOffByOne where place.page == pages: result = VerifyOutcome(result: 0)
    case .stalePageAfterTruncation, .copySurvivesTruncation:
      let isCopy = mistake == .copySurvivesTruncation
      if behind, let old = oldSizes[place.file], Int(place.page) * 4096 < old, isCopy != isShared {
        result = VerifyOutcome(result: 0)
      }
    default: break
    }
    return result
  }

  /// From now on a page stays in its file as it is.
  private func lose(_ place: Place) {
    if lost[place] != nil { return }
    let bytes = inner.contents(place.file, isWritten: false)
    let start = Int(place.page) * 4096
    lost[place] = Array(bytes[start..<min(bytes.count, start + 4096)])
  }

  private func synchronize(_ call: VerifyCall) -> VerifyOutcome {
    let result = super.perform(call)
    // Holes are told, and what is mapped is written.
    if mistake == .dirtyBitLost, result.result == 0 || result.result == -12, isOrdinary(call) {
      for page in pages(call.at, call.length) {
        if let (place, isShared) = place(page), isShared { cleaned.insert(place) }
      }
    }
    if mistake == .syncSkipsHole, result.result == -12, isOrdinary(call) { return .success }
    return result
  }

  private func truncate(_ call: VerifyCall) -> VerifyOutcome {
    if mistake == .truncationIsLost, call.value < 1 << 62, call.descriptor == 0 {
      return .success
    }
    let file = [0: 0, 2: 0, 3: 1][call.descriptor]
    let before = file.map { inner.contents($0, isWritten: false).count }
    let result = super.perform(call)
    if let file, let before, result.result == 0 { oldSizes[file] = before }
    return result
  }

  override func sizes() -> VerifySizes {
    var sizes = super.sizes()
    sizes.residentFile += copies
    return sizes
  }

  override func contents(_ file: Int, isWritten: Bool) -> [UInt8] {
    var bytes = super.contents(file, isWritten: isWritten)
    if !isWritten { return bytes }
    for (place, old) in lost where place.file == file {
      let start = Int(place.page) * 4096
      for i in old.indices where start + i < bytes.count { bytes[start + i] = old[i] }
    }
    return bytes
  }

  override func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] {
    var list = super.mappings(start, end)
    switch mistake {
    case .offsetAfterSplit:
      for i in list.indices where list[i].file != 0 {
        guard let left = inner.mappings(list[i].start &- 1, list[i].start).first,
          left.end == list[i].start, left.file == list[i].file,
          left.offset + (left.end - left.start) == list[i].offset
        else { continue }
        list[i].offset = left.offset
      }
    case .mergesAcrossOffsets:
      var merged: [VerifyMapping] = []
      for mapping in list {
        if let last = merged.last, last.end == mapping.start, mapping.file != 0,
          last.file == mapping.file, last.protection == mapping.protection,
          last.isShared == mapping.isShared,
          last.offset + (last.end - last.start) != mapping.offset
        {
          merged[merged.count - 1].end = mapping.end
        } else {
          merged.append(mapping)
        }
      }
      list = merged
    default: break
    }
    return list
  }
}

extension SpaceSubject {
  fileprivate func mapsShared(_ call: VerifyCall) -> Bool {
    mappings(call.at, call.at &+ call.length).contains { $0.isShared && $0.file != 0 }
  }
}
