// SPDX-License-Identifier: Apache-2.0
//
// Another size, and holes.
//
// Guarantee: when it returns no space maps a page that is gone, copies in private mappings included where the end has
//   moved; an access there is a bus error, or finds zeros.
// Mechanism: the gate is closed: nobody reads in or writes back, and faults that begin now find no page. Each space is
//   then asked for the range for writing, so faults that had found a page have ended, and what they installed is taken
//   out. A mapping that is made meanwhile, by a move too, is seen by its count, and the walk begins again.
// Lock order: nothing of the object is held while a space's range is waited for.
// Source: Linux mm/truncate.c `truncate_pagecache`, `truncate_pagecache_range`; mm/memory.c `unmap_mapping_range`.

import Synchronization
import SystemPackage

extension UnsafeMutablePointer where Pointee == MemoryObject {
  /// Changes the size. Pages behind the new end are gone from all mappings; the rest of its last page is zero.
  ///
  /// - Throws: what the file or the pager says, and nothing has changed.
  func resize(to size: UInt64, _ context: Context) throws(Errno) {
    let file = pointee.file.unsafelyUnwrapped
    file.pointee.gate.close()
    defer { file.pointee.gate.open() }
    try file.pointee.source.takeUnretainedValue().resize(to: size)
    let old = file.pointee.size.exchange(size, ordering: .acquiringAndReleasing)
    if size < old {
      let gone = (size + 4095) >> 12..<max((size + 4095) >> 12, (old + 4095) >> 12)
      unmapEverywhere(gone, copiesToo: true, file)
      drop(gone, file, context)
    }
    clearTail(min(size, old))
  }

  /// Makes the bytes of a range zeros. Private copies stay.
  func punchHole(_ range: Range<UInt64>, _ context: Context) throws(Errno) {
    let file = pointee.file.unsafelyUnwrapped
    file.pointee.gate.close()
    var isOpen = false
    defer { if !isOpen { file.pointee.gate.open() } }
    let end = min(range.upperBound, (file.pointee.size.load(ordering: .acquiring) + 4095) & ~4095)
    let source = file.pointee.source.takeUnretainedValue()
    if range.lowerBound >= end, !source.isAskedBehindEnd { return }
    var writesZeros = false
    do throws(Errno) {
      try source.discard(source.isAskedBehindEnd ? range : range.lowerBound..<end)
    } catch {
      if error != .notSupported { throw error }
      writesZeros = true
    }
    if range.lowerBound >= end { return }
    let first = (range.lowerBound + 4095) >> 12
    let last = max(first, end >> 12)
    if writesZeros {
      file.pointee.gate.open()
      isOpen = true
      try writeZeros(range.lowerBound..<end, context)
      return
    }
    unmapEverywhere(first..<last, copiesToo: false, file)
    drop(first..<last, file, context)
    // The ends of a range that cuts pages.
    if range.lowerBound >> 12 == end >> 12 {
      clear(range.lowerBound >> 12, Int(range.lowerBound & 4095)..<Int(end & 4095))
    } else {
      if range.lowerBound & 4095 != 0 {
        clear(range.lowerBound >> 12, Int(range.lowerBound & 4095)..<4096)
      }
      if end & 4095 != 0 { clear(end >> 12, 0..<Int(end & 4095)) }
    }
  }

  /// Where there are no holes.
  private func writeZeros(_ range: Range<UInt64>, _ context: Context) throws(Errno) {
    let zeros = UnsafeMutableRawBufferPointer.allocate(byteCount: 4096, alignment: 8)
    defer { zeros.deallocate() }
    zeros.initializeMemory(as: UInt8.self, repeating: 0)
    var at = range.lowerBound
    while at < range.upperBound {
      let count = Int(min(4096 - at & 4095, range.upperBound - at))
      _ = try writeBytes(UnsafeRawBufferPointer(rebasing: zeros[..<count]), at: at, context)
      at += UInt64(count)
    }
  }

  /// Takes pages out of the page tables of all spaces.
  private func unmapEverywhere(_ pages: Range<UInt64>, copiesToo: Bool, _ file: FileStateRef) {
    if pages.isEmpty { return }
    nonisolated(unsafe) let object = self
    var made: UInt64
    repeat {
      var places: [(space: UInt64, delta: UInt64)] = []
      (made, places) = mappingPlaces(file)
      for place in places {
        guard let range = Self.addresses(pages, place.delta),
          let space = file.pointee.table._withUnsafeGuaranteedRef({ $0.space(place.space) })
        else { continue }
        space.dropPages(range, of: object, deltaPages: place.delta, copiesToo: copiesToo)
      }
    } while file.pointee.mappingsMade.load(ordering: .acquiring) != made
  }

  private func mappingPlaces(
    _ file: FileStateRef
  ) -> (UInt64, [(space: UInt64, delta: UInt64)]) {
    var places: [(space: UInt64, delta: UInt64)] = []
    pointee.latch.lock(.objectMappings)
    defer { pointee.latch.unlock(.objectMappings) }
    LockMap.observe(.reverseMap, .objectMappings, .read)
    var next = pointee.mappings
    while let mapping = next {
      let place = (mapping.pointee.space, mapping.pointee.deltaPages)
      if !places.contains(where: { $0 == place }) { places.append(place) }
      next = mapping.pointee.next
    }
    return (file.pointee.mappingsMade.load(ordering: .relaxed), places)
  }

  /// Where pages would stand in a space; `nil` = nowhere.
  private static func addresses(_ pages: Range<UInt64>, _ delta: UInt64) -> AddressRange? {
    // Page numbers have 52 bits at most, so they are no matter of signs.
    let delta = Int64(bitPattern: delta)
    let last = Int64(Address.spaceEnd >> 12)
    let start = max(
      0, Int64(clamping: pages.lowerBound).addingReportingOverflow(delta).partialValue)
    let end = min(
      last, Int64(clamping: pages.upperBound).addingReportingOverflow(delta).partialValue)
    if start >= end { return nil }
    return AddressRange(start: UInt64(start) << 12, end: UInt64(end) << 12)
  }

  /// Lets pages go that nobody maps any more. The gate is closed.
  private func drop(_ pages: Range<UInt64>, _ file: FileStateRef, _ context: Context) {
    var next = pages.lowerBound
    while true {
      pointee.pagesLatch.lock(.pageTable)
      LockMap.observe(.objectPages, .pageTable, .write)
      let found = nextPageLocked(next, below: pages.upperBound)
      let frame = found.map { removeLocked($0) } ?? 0
      pointee.pagesLatch.unlock(.pageTable)
      guard let found else { return }
      _ = pointee.arena.clearDirty(frame, file)
      pointee.arena.release(frame, context)
      next = found + 1
    }
  }

  /// What is behind the end of the last page is zero.
  private func clearTail(_ size: UInt64) {
    if size & 4095 != 0 { clear(size >> 12, Int(size & 4095)..<4096) }
  }

  private func clear(_ page: UInt64, _ part: Range<Int>) {
    pointee.pagesLatch.lock(.pageTable)
    let slot = findSlotLocked(page)
    if slot != 0 {
      clearPage(pointee.arena.pointee.bytes(of: FrameNumber(truncatingIfNeeded: slot)), part)
    }
    pointee.pagesLatch.unlock(.pageTable)
  }

  // MARK: bytes

  /// Copies bytes out, up to the end of the object; how many.
  func readBytes(
    at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer, _ context: Context
  ) throws(Errno) -> Int {
    var done = 0
    while true {
      do throws(Errno) {
        try readInside(at: offset, into: buffer, &done, context)
        return done
      } catch {
        if error != .noMemory || !makeRoom(context) { throw error }
      }
    }
  }

  /// Lets pages of files go, outside of the gate; whether there were any.
  private func makeRoom(_ context: Context) -> Bool {
    pointee.file.unsafelyUnwrapped.pointee.table._withUnsafeGuaranteedRef {
      $0.reclaim(64, context) > 0
    }
  }

  private func readInside(
    at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer, _ done: inout Int,
    _ context: Context
  ) throws(Errno) {
    let file = pointee.file.unsafelyUnwrapped
    file.pointee.gate.enter()
    defer { file.pointee.gate.leave() }
    let size = file.pointee.size.load(ordering: .acquiring)
    guard offset < size else { return }
    let count = Int(min(UInt64(buffer.count), size - offset))
    while done < count {
      let at = offset + UInt64(done)
      let part = min(4096 - Int(at & 4095), count - done)
      let frame = try inside(at >> 12, file, context)
      copyBytes(
        from: pointee.arena.pointee.bytes(of: frame) + Int(at & 4095),
        to: buffer.baseAddress! + done,
        part)
      pointee.arena.release(frame, context)
      done += part
    }
  }

  /// Copies bytes in, and makes the object longer if they reach behind its end.
  func writeBytes(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, _ context: Context
  ) throws(Errno) -> Int {
    let file = pointee.file.unsafelyUnwrapped
    let (end, overflow) = offset.addingReportingOverflow(UInt64(bytes.count))
    guard !overflow, end <= UInt64(Int64.max) else { throw .fileTooLarge }
    if end > file.pointee.size.load(ordering: .acquiring) { try grow(to: end, file) }
    var done = 0
    while true {
      do throws(Errno) {
        try writeInside(bytes, at: offset, &done, file, context)
        return done
      } catch {
        if error != .noMemory || !makeRoom(context) { throw error }
      }
    }
  }

  private func writeInside(
    _ bytes: UnsafeRawBufferPointer, at offset: UInt64, _ done: inout Int, _ file: FileStateRef,
    _ context: Context
  ) throws(Errno) {
    file.pointee.gate.enter()
    defer { file.pointee.gate.leave() }
    while done < bytes.count {
      let at = offset + UInt64(done)
      // Somebody has made it shorter.
      if at >= file.pointee.size.load(ordering: .acquiring) { break }
      let part = min(4096 - Int(at & 4095), bytes.count - done)
      let frame = try inside(at >> 12, file, context)
      storeBytes(
        from: bytes.baseAddress! + done,
        to: pointee.arena.pointee.bytes(of: frame) + Int(at & 4095),
        part)
      // Afterwards: a write-back that began before has taken what it found.
      if file.pointee.tracksDirty { pointee.arena.markDirty(frame, file) }
      pointee.arena.release(frame, context)
      done += part
    }
  }

  private func grow(to size: UInt64, _ file: FileStateRef) throws(Errno) {
    file.pointee.gate.close()
    defer { file.pointee.gate.open() }
    let old = file.pointee.size.load(ordering: .acquiring)
    if old >= size { return }
    try file.pointee.source.takeUnretainedValue().resize(to: size)
    clearTail(old)
    file.pointee.size.store(size, ordering: .releasing)
  }

  /// A page, with a reference, for one who is inside the gate.
  private func inside(
    _ index: UInt64, _ file: FileStateRef, _ context: Context
  ) throws(Errno) -> FrameNumber {
    while true {
      pointee.pagesLatch.lock(.pageTable)
      let slot = findSlotLocked(index)
      if slot != 0, slot & ObjectSlot.loading == 0 {
        let frame = FrameNumber(truncatingIfNeeded: slot)
        pointee.arena.retain(frame)
        pointee.pagesLatch.unlock(.pageTable)
        return frame
      }
      pointee.pagesLatch.unlock(.pageTable)
      // The size does not change while we are inside.
      try bringInInside(index, isRandom: false, file, context)
    }
  }

  private func copyBytes(
    from source: UnsafeMutableRawPointer, to target: UnsafeMutableRawPointer, _ count: Int
  ) {
    // Sound: others use these bytes at the same time, as atomics.
    var i = 0
    while i < count {
      if UInt(bitPattern: source + i) & 7 == 0, i + 8 <= count {
        let word = (source + i).assumingMemoryBound(to: Atomic<UInt64>.self)
        (target + i).storeBytes(of: word.pointee.load(ordering: .relaxed), as: UInt64.self)
        i += 8
      } else {
        let byte = (source + i).assumingMemoryBound(to: Atomic<UInt8>.self)
        (target + i).storeBytes(of: byte.pointee.load(ordering: .relaxed), as: UInt8.self)
        i += 1
      }
    }
  }

  private func storeBytes(
    from source: UnsafeRawPointer, to target: UnsafeMutableRawPointer, _ count: Int
  ) {
    // Sound: as in `copyBytes`.
    var i = 0
    while i < count {
      if UInt(bitPattern: target + i) & 7 == 0, i + 8 <= count {
        let word = (target + i).assumingMemoryBound(to: Atomic<UInt64>.self)
        word.pointee.store((source + i).loadUnaligned(as: UInt64.self), ordering: .relaxed)
        i += 8
      } else {
        let byte = (target + i).assumingMemoryBound(to: Atomic<UInt8>.self)
        byte.pointee.store((source + i).load(as: UInt8.self), ordering: .relaxed)
        i += 1
      }
    }
  }
}
