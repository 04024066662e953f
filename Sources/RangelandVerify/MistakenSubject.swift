// SPDX-License-Identifier: Apache-2.0
//
// A correct address space, seen through a mistake.

import Rangeland

final class MistakenSubject: VerifySubject {
  private let mistake: Mistake
  private let inner: SpaceSubject
  /// Pages that were written to since they were mapped.
  private var written: Set<UInt64> = []
  /// Pages that were only read.
  private var loaded: Set<UInt64> = []
  /// Ends of new mappings that must not look joined.
  private var borders: Set<UInt64> = []
  /// Pages from which mprotect took the right to write.
  private var stale: Set<UInt64> = []
  /// The last word stored in a page that is gone.
  private var ghosts: [UInt64: UInt64] = [:]
  private var extraPages = 0

  private static var page: UInt64 { 4096 }

  init(_ mistake: Mistake, _ inner: SpaceSubject) {
    self.mistake = mistake
    self.inner = inner
  }

  private func pages(_ start: UInt64, _ length: UInt64) -> StrideTo<UInt64> {
    // Calls that succeed stay in a window.
    stride(from: start, to: start &+ min(length, 64 << 20), by: Int(Self.page))
  }

  private func rights(_ address: UInt64) -> UInt32? {
    inner.mappings(address, address &+ 1).first.map(\.protection)
  }

  // MARK: calls

  func perform(_ call: VerifyCall, at address: UInt64) -> VerifyOutcome {
    switch call.kind {
    case .mmap: map(call, at: address)
    case .munmap: unmap(call, at: address)
    case .mprotect: protect(call, at: address)
    case .madvise: advise(call, at: address)
    case .load, .store: access(call, at: address)
    }
  }

  private func map(_ call: VerifyCall, at address: UInt64) -> VerifyOutcome {
    var call = call
    var address = address
    let isPlaced = !call.isFixed
    let wasMapped = inner.mappings(address, address &+ max(1, min(call.length, 64 << 20)))
    switch mistake {
    case .hintRoundedUp where isPlaced && address < 1 << 46: address = (address + 4095) & ~4095
    case .hintIgnored where isPlaced: address = 0
    case .fixedErrnoOrder where call.isFixed && address % 4096 != 0 && call.length != 0:
      return VerifyOutcome(.invalidArgument)
    case .noReplaceFirstPage where call.isNoReplace:
      if inner.mappings(address, address &+ 1).isEmpty {
        call.flags = call.flags & ~VerifyCall.fixedNoReplace | VerifyCall.fixed
        if !isInWindow(address, call.length) { return inner.perform(call, at: address) }
      }
    case .noReplaceTouching where call.isNoReplace && address % 4096 == 0:
      if isInWindow(address, call.length),
        !inner.mappings(address - 1, address + call.length + 1).isEmpty
      {
        return VerifyOutcome(.fileExists)
      }
    case .guardPage where isPlaced && address == 0 && call.length < 1 << 40:
      return placeLower(call)
    case .noHugeAlignment
    where isPlaced && address == 0 && call.length % (2 << 20) == 0 && call.length < 1 << 40:
      return placeUnaligned(call)
    default: break
    }
    let result = inner.perform(call, at: address)
    guard result.result >= 0 else { return result }
    let start = UInt64(result.result)
    for page in pages(start, call.length) {
      written.remove(page)
      loaded.remove(page)
      stale.remove(page)
      if page > start { borders.remove(page) }
    }
    let end = start + (call.length + 4095) / 4096 * 4096
    if mistake == .noMergeRight { borders.insert(end) }
    if mistake == .replacedStaysCounted, call.isFixed {
      for mapping in wasMapped {
        extraPages += Int(min(end, mapping.end) - max(start, mapping.start)) / 4096
      }
    }
    if mistake == .contentsLeak, call.protection == 3, call.flags & VerifyCall.shared == 0 {
      for page in pages(start, call.length) {
        guard let value = ghosts[page] else { continue }
        _ = inner.perform(VerifyCall(.store, VerifyAddress(nil, page), 8, value: value), at: page)
      }
    }
    return result
  }

  private func isInWindow(_ address: UInt64, _ length: UInt64) -> Bool {
    address < 1 << 47 && length < 1 << 30 && length > 0
  }

  /// One page more is mapped, and its highest given back.
  private func placeLower(_ call: VerifyCall) -> VerifyOutcome {
    var longer = call
    longer.length = (call.length + 4095) / 4096 * 4096 + 4096
    let result = inner.perform(longer, at: 0)
    if result.result < 0 || call.length == 0 { return result }
    let top = UInt64(result.result) + longer.length - 4096
    _ = inner.perform(VerifyCall(.munmap, VerifyAddress(nil, top), 4096), at: top)
    return result
  }

  /// One page more is mapped, which is no multiple of a huge page, and its lowest given back.
  private func placeUnaligned(_ call: VerifyCall) -> VerifyOutcome {
    var longer = call
    longer.length += 4096
    let result = inner.perform(longer, at: 0)
    if result.result < 0 || call.length == 0 { return result }
    let start = UInt64(result.result)
    _ = inner.perform(VerifyCall(.munmap, VerifyAddress(nil, start), 4096), at: start)
    return VerifyOutcome(result: result.result + 4096)
  }

  private func unmap(_ call: VerifyCall, at address: UInt64) -> VerifyOutcome {
    var call = call
    if mistake == .unmapRoundsDown, call.length > 4096 { call.length &= ~4095 }
    if mistake == .contentsLeak, address % 4096 == 0 {
      for page in pages(address, call.length) where written.contains(page) {
        let word = inner.perform(VerifyCall(.load, VerifyAddress(nil, page), 8), at: page)
        if word.signal == 0 { ghosts[page] = UInt64(bitPattern: word.result) }
      }
    }
    let isHole =
      isInWindow(address, call.length) && inner.mappings(address, address + call.length).isEmpty
    let result = inner.perform(call, at: address)
    if result.result < 0 {
      let isBeyond = address % 4096 == 0 && call.length > 1 << 46
      return mistake == .unmapErrno && isBeyond ? VerifyOutcome(.noMemory) : result
    }
    for page in pages(address, call.length) {
      written.remove(page)
      loaded.remove(page)
      stale.remove(page)
      borders.remove(page)
    }
    return mistake == .unmapOfHoleFails && isHole ? VerifyOutcome(.noMemory) : result
  }

  private func protect(_ call: VerifyCall, at address: UInt64) -> VerifyOutcome {
    var call = call
    var address = address
    let isOrdinary = address % 4096 == 0 && isInWindow(address, call.length)
    let mapped = isOrdinary ? inner.mappings(address, address + call.length) : []
    if mistake == .protectWholeMapping, mapped.count == 1, let only = mapped.first,
      only.start <= address, only.end >= address + call.length, only.end - only.start < 1 << 30
    {
      (address, call.length) = (only.start, only.end - only.start)
    }
    if mistake == .protectLeavesWrite {
      for page in pages(address, call.length) where (rights(page) ?? 0) & 2 != 0 {
        stale.insert(page)
      }
    }
    if mistake == .protectRolledBack, isOrdinary,
      Coverage.shape(mapped, address, address + (call.length + 4095) / 4096 * 4096) == "gaps"
    {
      return VerifyOutcome(.noMemory)
    }
    let result = inner.perform(call, at: address)
    if mistake == .protectBehindHole, isOrdinary, result.result == -12 {
      let end = address + (call.length + 4095) / 4096 * 4096
      for mapping in mapped {
        let start = max(address, mapping.start)
        var part = call
        part.length = min(end, mapping.end) - start
        _ = inner.perform(part, at: start)
      }
    }
    return result
  }

  private func advise(_ call: VerifyCall, at address: UInt64) -> VerifyOutcome {
    var call = call
    switch mistake {
    case .adviceRoundsDown where call.length > 4096 && call.length < 1 << 30: call.length &= ~4095
    case .adviceKeepsPages:
      // The answer, without the work: behind the last page of all that is mapped nothing is dropped.
      let isOrdinary = address % 4096 == 0 && isInWindow(address, call.length)
      if isOrdinary {
        let end = address + (call.length + 4095) / 4096 * 4096
        let shape = Coverage.shape(inner.mappings(address, end), address, end)
        return shape == "gaps" || shape == "hole" ? VerifyOutcome(.noMemory) : .success
      }
    case .adviceStopsAtHole where address % 4096 == 0 && isInWindow(address, call.length):
      let end = address + (call.length + 4095) / 4096 * 4096
      var position = address
      for mapping in inner.mappings(address, end) {
        if mapping.start > position { break }
        position = min(end, mapping.end)
      }
      if position > address {
        var part = call
        part.length = position - address
        _ = inner.perform(part, at: address)
      }
      return position < end ? VerifyOutcome(.noMemory) : .success
    case .adviceEmptiesShared where address % 4096 == 0 && isInWindow(address, call.length):
      for mapping in inner.mappings(address, address + call.length)
      where mapping.isShared && mapping.protection & 2 != 0 {
        let end = min(mapping.end, address + (call.length + 4095) / 4096 * 4096)
        for page in pages(max(mapping.start, address), end - max(mapping.start, address)) {
          for at in stride(from: page, to: page + 4096, by: 8) where written.contains(page) {
            _ = inner.perform(VerifyCall(.store, VerifyAddress(nil, at), 8), at: at)
          }
        }
      }
    default: break
    }
    return inner.perform(call, at: address)
  }

  private func access(_ call: VerifyCall, at address: UInt64) -> VerifyOutcome {
    let page = address & ~4095
    if mistake == .writeOnlyNotReadable, call.kind == .load, address < 1 << 46, rights(address) == 2
    {
      return VerifyOutcome(signal: 11, code: 2, faultAddress: address)
    }
    var result = inner.perform(call, at: address)
    if result.signal != 0 {
      if mistake == .faultCode, result.code == 2 { result.code = 1 }
      if mistake == .protectLeavesWrite, call.kind == .store, result.code == 2,
        stale.contains(page)
      {
        return .success
      }
      return result
    }
    if call.kind == .store {
      written.insert(page)
      loaded.remove(page)
    } else if !written.contains(page) {
      loaded.insert(page)
    }
    return result
  }

  // MARK: listings

  func mappings(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] {
    switch mistake {
    case .mergesAcrossIdentity: joined(start, end) { $0 && $1 }
    case .mergesAcrossCharge: joined(start, end) { !$0 && !$1 }
    case .mergesShared: joinedShared(start, end)
    case .noMergeRight: split(inner.mappings(start, end), start, end)
    case .offsetStays:
      inner.mappings(start, end).map {
        var mapping = $0
        mapping.offset = 0
        return mapping
      }
    default: inner.mappings(start, end)
    }
  }

  /// The listing with private neighbours of equal rights as one where `condition` says so of whether each was
  /// written to.
  private func joined(
    _ start: UInt64, _ end: UInt64, _ condition: (Bool, Bool) -> Bool
  ) -> [VerifyMapping] {
    func isWritten(_ mapping: VerifyMapping) -> Bool {
      written.contains { $0 >= mapping.start && $0 < mapping.end }
    }
    return join(start, end) {
      !$0.isShared && !$1.isShared && condition(isWritten($0), isWritten($1))
    }
  }

  private func joinedShared(_ start: UInt64, _ end: UInt64) -> [VerifyMapping] {
    join(start, end) { $0.isShared && $1.isShared }
  }

  private func join(
    _ start: UInt64, _ end: UInt64, _ condition: (VerifyMapping, VerifyMapping) -> Bool
  ) -> [VerifyMapping] {
    var result: [VerifyMapping] = []
    // What lies outside the windows stays as it is.
    for mapping in inner.mappings(start, end) {
      if let last = result.last, last.end == mapping.start, last.protection == mapping.protection,
        last.end - last.start < 1 << 30, mapping.end - mapping.start < 1 << 30,
        condition(last, mapping)
      {
        result[result.count - 1].end = mapping.end
      } else {
        result.append(mapping)
      }
    }
    return result
  }

  private func split(
    _ mappings: [VerifyMapping], _ start: UInt64, _ end: UInt64
  ) -> [VerifyMapping] {
    var result: [VerifyMapping] = []
    for mapping in mappings {
      var rest = mapping
      for border in borders.filter({ $0 > mapping.start && $0 < mapping.end }).sorted() {
        if border > start { result.append(rest.cut(at: border)) } else { _ = rest.cut(at: border) }
        if border >= end { return result }
      }
      result.append(rest)
    }
    return result
  }

  func presentPages(_ start: UInt64, _ end: UInt64) -> [UInt64] {
    let pages = inner.presentPages(start, end)
    return mistake == .loadNotResident ? pages.filter { !loaded.contains($0) } : pages
  }

  func hash(_ page: UInt64) -> UInt64? { inner.hash(page) }

  func sizes() -> VerifySizes {
    var sizes = inner.sizes()
    sizes.virtual += extraPages
    return sizes
  }
}

extension VerifyMapping {
  /// Takes the part below `border` off and returns it.
  fileprivate mutating func cut(at border: UInt64) -> VerifyMapping {
    var below = self
    below.end = border
    if isShared { offset += border - start }
    start = border
    return below
  }
}
