// SPDX-License-Identifier: Apache-2.0
//
// What the helper is asked for: calls, all that is mapped, empty windows.

import CKernelProtocol

extension KernelProcess {
  private func post(_ operation: Int, _ first: UInt64 = 0, _ second: UInt64 = 0) {
    var request = KernelRequest(operation: operation)
    request.arguments[0] = first
    request.arguments[1] = second
    post(request, near: [])
  }

  private func post(_ request: KernelRequest, near: [NearPlace]) {
    channel.pointee.operation = UInt64(request.operation)
    channel.pointee.number = UInt64(request.number)
    withUnsafeMutableBytes(of: &channel.pointee.arguments) { arguments in
      for i in 0..<6 {
        arguments.storeBytes(of: request.arguments[i], toByteOffset: i * 8, as: UInt64.self)
      }
    }
    channel.pointee.buffer_argument = request.bufferArgument
    if !request.buffer.isEmpty {
      precondition(request.buffer.count <= Int(KP_BUFFER), "a call's buffer is too long")
      request.buffer.withUnsafeBytes {
        kp_buffer(channel).copyMemory(from: $0.baseAddress!, byteCount: $0.count)
      }
    }
    precondition(near.count <= Int(KP_PLACES), "a call has too many places")
    channel.pointee.place_count = UInt32(near.count)
    withUnsafeMutableBytes(of: &channel.pointee.places) { places in
      for (i, place) in near.enumerated() {
        places.storeBytes(
          of: kp_place(
            address: place.address, length: place.length,
            follows_result: place.followsResult ? 1 : 0),
          toByteOffset: i * MemoryLayout<kp_place>.stride, as: kp_place.self)
      }
    }
    // Nobody else writes the word.
    kp_signal(
      &channel.pointee.request, &channel.pointee.request_sleepers, channel.pointee.request &+ 1)
  }

  private func finish() throws(VerifyError) {
    var tries = 0
    let before = channel.pointee.request &- 1
    while kp_wait(&channel.pointee.reply, &channel.pointee.reply_sleepers, before, 100) == before {
      tries += 1
      if hasEnded { throw VerifyError("the kernel helper has died") }
      if tries > 300 { throw VerifyError("the kernel helper has not answered for 30 s") }
    }
  }

  // MARK: calls

  /// Lets the helper begin with a call, whose addresses are absolute; `outcome` waits for it. One that reaches
  /// beyond the windows is refused.
  func begin(_ call: VerifyCall) throws(VerifyError) {
    if !windows.isHarmless(call) {
      throw VerifyError("'\(call)' reaches beyond the windows: it was not performed")
    }
    let definition = call.kind.definition
    current = call.space
    if call.kind == .exit { try watchEnd() }
    if call.kind == .mseal { hasSeals = true }
    if call.kind.hasDescriptor { files.isUsed = true }
    post(
      definition.request(call.rebased(baseline).with(files.kernel)), near: definition.near(call))
  }

  /// The kernel's answer to the call that was begun.
  func outcome(_ call: VerifyCall) throws(VerifyError) -> VerifyOutcome {
    try finish()
    // Field by field: the channel is large.
    if channel.pointee.signal != 0 {
      return VerifyOutcome(
        signal: channel.pointee.signal, code: channel.pointee.code,
        faultAddress: channel.pointee.fault_address)
    }
    var outcome = VerifyOutcome(result: channel.pointee.result)
    if outcome.result == 0 {
      if call.kind == .fork { noteCopy(Int(call.value)) }
      if call.kind == .exit {
        try waitForEnd()
        noteEnd(call.space)
      }
    }
    let compared = call.kind.definition.request(call).comparedBytes
    if compared > 0 && outcome.result >= 0 {
      outcome.output = [UInt8](UnsafeRawBufferPointer(start: kp_buffer(channel), count: compared))
    }
    return outcome
  }

  /// The ranges in which mappings are compared after a call; those outside the windows are left out.
  func near(_ call: VerifyCall, _ outcome: VerifyOutcome) -> [AddressPair] {
    call.kind.definition.near(call).compactMap { place in
      var range = kp_window()
      var place = kp_place(
        address: place.address, length: place.length,
        follows_result: place.followsResult ? 1 : 0)
      let found = kp_near(&channel.pointee.windows.0, &place, outcome.result, &range)
      return found != 0 ? AddressPair(start: range.start, end: range.end) : nil
    }
  }

  /// Lets the template make the first member.
  func makeFirst() throws(VerifyError) {
    post(KP_FORK, 0)
    try finish()
    let result = channel.pointee.result
    if result != 0 { throw VerifyError("the kernel helper cannot make a copy: errno \(-result)") }
  }

  /// Ends the copy that is asked.
  func endCurrent() throws(VerifyError) {
    try watchEnd()
    post(KP_EXIT)
    try finish()
    try waitForEnd()
  }

  /// The process that is asked will be asked to end.
  private func watchEnd() throws(VerifyError) {
    ending = kp_open_process(process)
    if ending < 0 { throw VerifyError("a process cannot be watched: errno \(-ending)") }
  }

  /// Waits until it has given up its pages, which others may have too: what the kernel says of those depends on how many
  /// have them.
  private func waitForEnd() throws(VerifyError) {
    let result = kp_wait_for_end(ending, 30_000)
    if result < 0 { throw VerifyError("a process does not end: errno \(-result)") }
  }

  /// Locks everything that there is outside the windows, and ends that again; the number of pages.
  func lockEverything() throws(VerifyError) -> Int {
    post(KP_PRIVILEGE, 1)
    try finish()
    post(KernelRequest(KP_SYS_mlockall, 1), near: [])
    try finish()
    post(KP_SIZES)
    try finish()
    let pages = absoluteSizes.locked
    try reset()
    return pages
  }

  // MARK: listings

  /// The mappings that came with the last answer.
  var listed: [VerifyMapping] {
    UnsafeBufferPointer(start: kp_mappings(channel), count: Int(channel.pointee.mapping_count)).map
    {
      VerifyMapping(
        start: $0.start, end: $0.end, protection: $0.protection, isShared: $0.shared != 0,
        offset: $0.offset, file: files.kernel.number($0.inode))
    }
  }

  /// Lets the helper look at all that is in the windows, and at its sizes; `finishState` waits for it.
  func beginState() { post(KP_STATE) }

  /// The sizes and `forEachPage` tell what was found.
  ///
  /// - Returns: all mappings, by window.
  func finishState() throws(VerifyError) -> [[VerifyMapping]] {
    try finish()
    if channel.pointee.result < 0 {
      throw VerifyError("what is mapped cannot be told: errno \(-channel.pointee.result)")
    }
    var rest = listed[...]
    return withUnsafeBytes(of: &channel.pointee.window_mappings) {
      $0.bindMemory(to: UInt32.self).map { count in
        defer { rest = rest.dropFirst(Int(count)) }
        return Array(rest.prefix(Int(count)))
      }
    }
  }

  /// The flags of all mappings of the last state, as `VerifyFlags.set`.
  var listedFlags: [UInt64] {
    UnsafeBufferPointer(start: kp_mappings(channel), count: Int(channel.pointee.mapping_count))
      .map(\.flags)
  }

  /// Calls `body` for each page of a window that was mapped when the state was told: whether it is shared, and the hash
  /// of its content when it is resident.
  func forEachPage(
    _ window: AddressPair, _ body: (UInt64, _ isShared: Bool, _ hash: UInt64?) -> Void
  ) {
    let first = windows.prefix { $0 != window }.reduce(0) { $0 + ($1.end - $1.start) / 4096 }
    let pages = UnsafeBufferPointer(
      start: kp_pages(channel) + Int(first), count: Int((window.end - window.start) / 4096))
    for (i, page) in pages.enumerated() where page.state != UInt32(KP_UNMAPPED) {
      body(
        window.start + UInt64(i) * 4096, page.shared != 0,
        page.state == UInt32(KP_RESIDENT) ? page.hash : nil)
    }
  }

  /// Empties the windows, and checks that the last script left nothing outside them.
  func reset() throws(VerifyError) {
    try endCopies()
    post(KP_RESET)
    try finish()
    let count = channel.pointee.result
    if count < 0 || (outside ?? count) != count {
      throw VerifyError(
        "a script changed the helper's own mappings (\(count), not \(outside ?? 0))")
    }
    outside = count
    if files.isUsed {
      try VerifyFiles.reset(files.kernel)
      (files.isUsed, files.needsReset) = (false, true)
    }
    baseline = absoluteSizes
  }
}
